"""``watch`` a model and get a ``Monitor``."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from stabmon.batch import Batch
from stabmon.errors import ArgumentError, WatchError
from stabmon.generators import same_generators
from stabmon.hooks import Recording
from stabmon.metrics import METRICS, When
from stabmon.monitor import new_run
from stabmon.monitor.arguments import check_model, check_options, check_race
from stabmon.monitor.live_race import NAMES, Race
from stabmon.monitor.monitor import Monitor
from stabmon.monitor.optimizers import with_hooks
from stabmon.monitor.watched import claim, refuse_compiled, release
from stabmon.names import check_run_name
from stabmon.schedule import Schedule
from stabmon.stats import Plan

if TYPE_CHECKING:
    from stabmon.rules import Limits, Rule
    from stabmon.sinks import Sink


def watch(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    *,
    dir: str | Path | None = "runs",
    name: str | None = None,
    schedule: Schedule = Schedule(),  # noqa: B008 frozen
    log: Sequence[str] = ("loss",),
    scaler: GradScaler | None = None,
    config: object = None,
    sinks: "Sequence[Sink] | None" = None,
    limits: "Limits | Mapping[str, Any] | str | Path | None" = None,
    rules: "Sequence[str | Path | Rule]" = (),
    ignore: Collection[str] = (),
    console: bool = True,
    trackers: bool = True,
    server: str | None = None,
    token: str | None = None,
    resume: bool = False,
    first_step: int | None = None,
    batch: Batch | None = None,
    race: bool | Race = False,
) -> Monitor:
    """Record the stability of ``model`` while it trains, without changing a bit of the training.

    Attention is looked for right before the first pass in training mode, and the run begins when the first step ends;
    what could not be recorded is then in ``Monitor.failures``, on the console and with the run. With ``batch`` both
    happen here. Attach before ``torch.compile``, after DDP or before it. Passes in eval mode or without gradients are
    not recorded.
    A compiled model that checkpoints activations stays one graph only with
    ``torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True``; otherwise torch runs it uncompiled.

    Args:
        model: any module; its attention is found by running it, see ``stabmon.discover.scan``.
        optimizer: whose steps are counted, by a hook; without one, call ``monitor.step()`` after each step. Of several,
            those that step one after another without a pass between them end one step.
        dir: folder of runs; None writes no files. Under torch.distributed only rank 0 writes.
        name: the run's folder in ``dir``; by default the model's class and the time.
        schedule: which steps are recorded, and how many query rows of each.
        log: names of the numbers given to ``monitor.log``.
        scaler: the GradScaler in use: gradient norms are divided by its scale.
        config: kept with the run: a mapping, namespace or dataclass; what JSON has no form for is kept as text.
        sinks: further sinks, beside the store and TensorBoard.
        limits: limits of the rules, as ``Limits``, as names and numbers, or as a YAML file of them.
        rules: rules of your own, beside stabmon's: Python files that register them, or the rules themselves.
        ignore: codes of rules that are not evaluated.
        console: print the map of what was found, and findings as they open.
        trackers: send per-layer numbers and findings on to the runs of Weights & Biases, MLflow and trackio that are
            active when the first step ends.
        server: address of a `stabmon serve` to which the run is sent as well, such as "http://host:8420", or set
            STABMON_SERVER to it; with ``dir=None`` it is kept there alone. A training never waits for it.
        token: with scope write, from `stabmon token create`; better in STABMON_TOKEN.
        resume: go on with the run that is there, at ``first_step``.
        first_step: optimizer steps that were taken before. By default 0, or where a run is resumed the step after its
            last recorded one; a loop that goes back to a checkpoint says its own.
        batch: a tensor (the only argument), a tuple (the arguments) or a mapping (the keyword arguments) with which
            the model is called as in training.
        race: whether the model is raced against its own softmax twin beside the training (rule BEH001), with a single
            optimizer: every tenth batch trains two shadows of the model too, which takes 0.2 of a step's time and twice
            the memory of weights, gradients and optimizer state; ``stabmon.Race`` changes that. The training itself
            stays bit-identical. Of a model in DistributedDataParallel, watch the module inside; shards cannot be raced.

    Raises:
        ModelError: with ``batch``: no attention was found, a head count is unknown, or the model does not take it.
        WatchError: the model is watched already or was compiled before, or ``log`` names a number that stabmon records.
        ArgumentError: an argument is of another kind or range, or ``optimizer`` is another model's. It is a WatchError
            and a ValueError. Nothing has been made.
        StoreError: the run cannot be written, or exists already.
        ConfigError: limits, rules or codes that do not exist or cannot be read.
    """
    with same_generators():
        check_model(model, optimizer)
        check_options(
            schedule=schedule,
            scaler=scaler,
            sinks=sinks,
            ignore=ignore,
            first_step=first_step,
            resume=resume,
            name=name,
        )
        refuse_compiled(model)
        if name is not None:
            check_run_name(name)
        logged = _checked(log)
        chosen = check_race(race, model, optimizer)
        logged = logged if chosen is None else tuple(dict.fromkeys((*logged, *NAMES)))
        options = new_run.RunOptions(
            dir, name, config, sinks, limits, rules, ignore, console, resume, trackers, server, token
        )
        claim(model)
        try:
            run = new_run.Reservation(model, options)
            try:
                optimizers = with_hooks(optimizer)
                plan = Plan((), logged, optimizer=bool(optimizers))
                recording = Recording(plan, new_run.device_of(model), schedule.rows)
                first = run.next_step() if first_step is None else first_step
                monitor = Monitor(model, optimizers, run, recording, schedule, scaler=scaler, first_step=first)
                monitor.attach(batch)
                if chosen is not None:
                    monitor.begin_race(chosen)
            except BaseException:
                run.release()
                raise
        except BaseException:
            release(model)
            raise
        return monitor


def _checked(log: Sequence[str]) -> tuple[str, ...]:
    if isinstance(log, str):
        raise ArgumentError(f"log must be a sequence of names, got the text {log!r}; write log=({log!r},)")
    for name in log:
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise ArgumentError(f"log must be a sequence of names of printable letters, got {name!r}")
    own = {metric.name for metric in METRICS.values() if metric.when not in (When.LOGGED, When.PREFLIGHT)}
    if taken := sorted(own & set(log)):
        raise WatchError(f"log names {', '.join(taken)}, which stabmon records itself; choose another name")
    return tuple(dict.fromkeys(log))
