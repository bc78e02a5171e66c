"""Preparation of a run: a name, a folder, its description, sinks, rules, and the recorder between them."""

import contextlib
import platform
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import distributed, nn

from stabmon.failures import Failures
from stabmon.monitor.config_values import stored
from stabmon.records import ModelMap, RunInfo
from stabmon.stats import Plan, finalise

if TYPE_CHECKING:
    from stabmon.recorder import Recorder
    from stabmon.rules import Engine, Limits, Rule
    from stabmon.sinks import Sink


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


class NewRun(NamedTuple):
    """A run that has started. path: its folder, or None where no files are written."""

    recorder: "Recorder"
    path: Path | None


@contextmanager
def started(
    model: nn.Module, model_map: ModelMap, plan: Plan, options: RunOptions, failures: Failures
) -> Iterator[NewRun]:
    """Start the run of ``model`` for a block that puts it to use; print the map where the console is wanted.

    A run that fails here, or whose block fails, leaves no files.

    Raises:
        StoreError: the run's folder cannot be written, or a run of this name exists already.
    """
    from stabmon.recorder import Recorder

    writes = rank() == 0
    limits, rules = _limits(options), resolve_rules(options)
    with new_folder(options, _stem(model), writes=writes) as (name, path):
        info = describe(model, model_map, name, options.config).model_copy(update={"limits": limits.differences})
        engine = _engine(info, plan, limits, rules, path if options.resume else None)
        sinks = _sinks(path, options) if writes else []
        recorder = Recorder(
            plan.width, partial(finalise, plan=plan), info, plan.layout, sinks, engine, failures=failures
        )
        try:
            yield NewRun(recorder, path)
        except BaseException:
            recorder.discard()
            raise
    if options.console and writes:
        _print_map(model_map, failures)


def _stem(model: nn.Module) -> str:
    kind = re.sub(r"\W", "_", type(model).__name__.lower())
    return f"{kind or 'model'}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def new_folder(options: RunOptions, stem: str, *, writes: bool) -> Iterator[tuple[str, Path | None]]:
    """Yield the run's name and folder, or None where no files are written; where the block fails, empty folders go."""
    from stabmon.store import fresh_name

    if options.dir is None or not writes:
        yield options.name or stem, None
        return
    directory = Path(options.dir)
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    name = options.name or fresh_name(directory, stem)
    try:
        yield name, directory / name
    except BaseException:
        with contextlib.suppress(OSError):  # what is not empty is another's
            for folder in (directory / name, *missing):
                folder.rmdir()
        raise


def _limits(options: RunOptions) -> "Limits":
    """Return the limits and the ignored rules in one mapping, as the run's file stores them."""
    from stabmon.rules.limits import resolve

    limits = resolve(options.limits)
    return limits.changed({"ignore": list(options.ignore)}) if options.ignore else limits


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


def rank() -> int:
    """Return this process's rank under torch.distributed, 0 outside it."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _sinks(path: Path | None, options: RunOptions) -> list["Sink"]:
    from stabmon.sinks import ConsoleSink, StoreSink, TensorBoardSink

    made: list[Sink] = []
    if path is not None:
        made += [StoreSink(path, resume=options.resume), TensorBoardSink(path)]
    if options.console:
        made.append(ConsoleSink())
    return made + list(options.sinks or ())


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
