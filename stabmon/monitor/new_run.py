"""A run: its name and folder from ``watch`` on; its description, sinks, rules and recorder from its start on."""

import contextlib
import os
import platform
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from stabmon.distributed import Exchange, processes, rank
from stabmon.errors import ConfigError
from stabmon.failures import Failures
from stabmon.monitor.config_values import stored
from stabmon.records import ModelMap, RunInfo
from stabmon.series import Floats
from stabmon.stats import Plan

if TYPE_CHECKING:
    from stabmon.recorder import Recorder
    from stabmon.remote import Client
    from stabmon.rules import Engine, Limits, Rule
    from stabmon.sinks import Sink
    from stabmon.store.owner import Owner


class RunOptions(NamedTuple):
    """The arguments of ``watch`` that concern the run and not the model."""

    dir: str | Path | None
    name: str | None
    config: object
    sinks: "Sequence[Sink] | None"
    limits: "Limits | Mapping[str, Any] | str | Path | None"
    rules: "Sequence[str | Path | Rule]"
    ignore: Collection[str]
    console: bool
    resume: bool
    trackers: bool
    server: str | None = None
    token: str | None = None


class Reservation:
    """The name and the folder of a run that is to start; ``watch`` makes it, so that wrong use is refused at once.

    path: the run's folder, or None where no files are written.

    Raises:
        StoreError: the run's folder cannot be written, or a run of this name exists already.
        ConfigError: limits or rules cannot be read.
    """

    def __init__(self, model: nn.Module, options: RunOptions) -> None:
        self._options = options
        self._writes = rank() == 0
        self._owner: Owner | None = None
        self._made: list[Path] = []
        self._rules = resolve_rules(options)
        self._limits = _limits(options, self._rules)
        self.name = options.name or _stem(model)
        self.path: Path | None = None
        self._client = _client(options) if self._writes else None
        self._spools = options.dir is None and self._client is not None
        directory = _spool_folder() if self._spools else options.dir
        if directory is not None and self._writes:
            self._reserve(Path(directory))

    @property
    def resumes(self) -> bool:
        """A stored run goes on."""
        return self._options.resume

    def next_step(self) -> int:
        """Return the step after the last one that is recorded of a run that goes on, 0 of a new one."""
        from stabmon.store import FILE, open_run

        path = self.path
        if path is None and self._options.dir is not None and self._options.name is not None:
            path = Path(self._options.dir) / self._options.name  # of rank 0
        if not self.resumes or path is None or not (path / FILE).is_file():
            return 0
        with open_run(path) as reader:
            return reader.heartbeat().step + 1

    def _reserve(self, directory: Path) -> None:
        from stabmon.store import fresh_name, reserve

        self._made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        try:
            if self._options.name is None:
                self.name = fresh_name(directory, self.name)
            self.path = path = directory / self.name
            self._made.insert(0, path)
            self._owner = reserve(path, resume=self._options.resume)
        except BaseException:
            self.release()
            raise

    def start(
        self,
        model: nn.Module,
        model_map: ModelMap,
        plan: Plan,
        row: Callable[[Floats], Floats],
        failures: Failures,
        *,
        strict: bool,
        together: Exchange | None = None,
        width: int | None = None,
    ) -> "Recorder":
        """Start the run; print the map where the console is wanted.

        row: makes the row of a buffer of ``plan``.
        together: the exchange with the other processes, whose merged buffers ``plan`` is of.
        width: numbers in this process's own buffer, where that is another.
        strict: a sink's refusal is raised, and leaves no files; otherwise it is a failure, and the run goes on.

        Raises:
            StoreError: of a sink's start.
        """
        from stabmon.recorder import Recorder

        self._leave_to_rank_0(failures)
        info = describe(model, model_map, self.name, self._options.config)
        info = info.model_copy(update={"limits": self._limits.differences})
        resumed = self.path if self._options.resume else None
        try:
            engine = _engine(info, plan, self._limits, self._rules, resumed)
        except ConfigError as error:  # limits of layers that this model does not have
            if strict:
                raise
            failures.report("limits", str(error), "no layer has limits of its own in this run")
            limits = self._limits.model_copy(update={"layers": {}})
            info = info.model_copy(update={"limits": limits.differences})
            engine = _engine(info, plan, limits, self._rules, resumed)
        recorder = Recorder(
            width or plan.width,
            row,
            info,
            plan.layout,
            self._sinks(failures),
            engine,
            failures=failures,
            strict=strict,
            together=together,
        )
        if self._options.console and self._writes:
            _print_map(model_map, failures)
        return recorder

    def _leave_to_rank_0(self, failures: Failures) -> None:
        """Write nothing in another process than the first, also where it did not know so when ``watch`` was called."""
        if self._writes and rank() > 0:
            self._writes, self.path = False, None
            self.release()
        elif not self._writes and processes() == 1:
            what = f"the launcher's variables say that this process has rank {rank()}, and only rank 0 writes"
            failures.report("no run is written", what, "call torch.distributed.init_process_group, or unset them")

    def release(self) -> None:
        """Let another run have the name, as this one has not begun; folders that were made for it go, if empty."""
        from stabmon.store import FILE

        if self._owner is not None:
            self._owner.release(ended=self.path is not None and not (self.path / FILE).exists())
        with contextlib.suppress(OSError):  # what is not empty is another's
            for folder in self._made:
                folder.rmdir()
        self._made = []

    def _remote_sinks(self, path: Path, client: "Client", failures: Failures) -> list["Sink"]:
        """Return what sends the run's file to a server, and where it is written for that alone, what writes it."""
        from stabmon.remote import RemoteSink, SpoolSink

        remote = RemoteSink(path, client, failures.report, spool=self._spools)
        return [SpoolSink(path, lambda: remote.sent, owner=self._owner), remote] if self._spools else [remote]

    def _sinks(self, failures: Failures) -> list["Sink"]:
        from stabmon.sinks import ConsoleSink, StoreSink, TensorBoardSink, active_trackers

        if not self._writes:
            return []
        made: list[Sink] = []
        if self.path is not None and not self._spools:
            made += [StoreSink(self.path, resume=self._options.resume, owner=self._owner), TensorBoardSink(self.path)]
        if self.path is not None and self._client is not None:
            made += self._remote_sinks(self.path, self._client, failures)
        if self._options.console:
            made.append(ConsoleSink())
        given = list(self._options.sinks or ())
        if self._options.trackers:
            kinds = {type(sink) for sink in given}
            made += [sink for sink in active_trackers(failures) if type(sink) not in kinds]
        return made + given


def _client(options: RunOptions) -> "Client | None":
    """Return the connection to the server that is given, or named in the environment."""
    server = options.server or os.environ.get("STABMON_SERVER")
    if not server:
        return None
    from stabmon.remote import Client

    return Client(server, options.token or os.environ.get("STABMON_TOKEN"))


def _spool_folder() -> Path:
    from stabmon.remote import spool_folder

    return spool_folder()


def _stem(model: nn.Module) -> str:
    kind = re.sub(r"\W", "_", type(model).__name__.lower())
    return f"{kind or 'model'}-{datetime.now():%Y%m%d-%H%M%S}"


def _limits(options: RunOptions, rules: "tuple[Rule, ...]") -> "Limits":
    """Return the limits and the ignored rules in one mapping, as the run's file stores them."""
    from stabmon.rules.limits import resolve
    from stabmon.rules.registry import catalogue, find

    limits = resolve(options.limits)
    limits = limits.changed({"ignore": list(options.ignore)}) if options.ignore else limits
    for code in limits.ignore:
        find(code, catalogue(rules))
    return limits


def resolve_rules(options: RunOptions) -> "tuple[Rule, ...]":
    """Return the user's own rules; their files are read, and run, here."""
    from stabmon.rules import resolve

    return resolve(options.rules)


def _engine(info: RunInfo, plan: Plan, limits: "Limits", rules: "tuple[Rule, ...]", resumed: Path | None) -> "Engine":
    """Return the rules; those of a run that goes on have seen what is stored of it, so their baselines go on too."""
    from stabmon.rules import Engine
    from stabmon.store import FILE, open_run

    engine = Engine(info, plan.layout, limits, rules=rules)
    if resumed is not None and (resumed / FILE).is_file():
        with open_run(resumed) as reader:
            if reader.layout == plan.layout:  # another layout is refused by the store, in its own words
                engine.catch_up(reader)
    return engine


def describe(model: nn.Module, model_map: ModelMap, name: str, config: object = None) -> RunInfo:
    """Return the description of a run that starts now."""
    return RunInfo(
        name=name,
        created=datetime.now(UTC),
        model=model_map,
        config=stored(config),
        versions=_versions(device_of(model)),
    )


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter or buffer, or the CPU."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _print_map(model_map: ModelMap, failures: Failures) -> None:
    from stabmon.monitor.map_table import map_table
    from stabmon.sinks.terminal import StandardError

    try:
        StandardError().print(map_table(model_map))
    except Exception as error:  # a terminal that has gone must not stop the training
        failures.report("the map of the model", repr(error), "it is not printed")


def _versions(device: torch.device) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("stabmon", "torch", "triton"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    is_cuda = device.type == "cuda"
    found["device"] = torch.cuda.get_device_name(device) if is_cuda else f"{device.type} ({platform.machine()})"
    return found
