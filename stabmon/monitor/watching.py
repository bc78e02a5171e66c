"""``watch`` a model and get a ``Monitor``."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from stabmon.discover.find import map_of, sites
from stabmon.errors import WatchError
from stabmon.hooks import Recording
from stabmon.monitor import new_run
from stabmon.monitor.monitor import Monitor
from stabmon.monitor.watched import claim, refuse_compiled, release
from stabmon.names import RUN_NAME
from stabmon.records import ModelMap
from stabmon.schedule import Schedule
from stabmon.stats import Plan

if TYPE_CHECKING:
    from stabmon.rules import Limits, Rule
    from stabmon.sinks import Sink


def watch(
    model: nn.Module,
    optimizer: Optimizer | None = None,
    *,
    dir: str | Path | None = "runs",
    name: str | None = None,
    schedule: Schedule = Schedule(),  # noqa: B008 frozen
    log: Sequence[str] = ("loss",),
    heads: Mapping[str, int] | None = None,
    scaler: GradScaler | None = None,
    config: Mapping[str, Any] | None = None,
    sinks: "Sequence[Sink] | None" = None,
    limits: "Limits | str | Path | None" = None,
    rules: "Sequence[str | Path | Rule]" = (),
    ignore: Collection[str] = (),
    console: bool = True,
    resume: bool = False,
    first_step: int = 0,
) -> Monitor:
    """Record the stability of ``model`` while it trains, without changing a bit of the training.

    Attach before ``torch.compile``, after DDP or before it. Passes in eval mode or without gradients are not recorded.
    A compiled model that checkpoints activations stays one graph only with
    ``torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True``; otherwise torch runs it uncompiled.

    Args:
        model: a module with attention that stabmon can read; see ``stabmon.discover.find``.
        optimizer: whose steps are counted, by a hook; without one, call ``monitor.step()`` after each step.
        dir: folder of runs; None writes no files. Under torch.distributed only rank 0 writes.
        name: the run's folder in ``dir``; by default the model's class and the time.
        schedule: which steps are recorded, and how many query rows of each.
        log: names of the numbers given to ``monitor.log``.
        heads: number of heads by module path, where a module's attributes do not say it.
        scaler: the GradScaler in use: gradient norms are divided by its scale.
        config: kept with the run.
        sinks: further sinks, beside the store and TensorBoard.
        limits: thresholds of the rules, or a YAML file of them.
        rules: rules of your own, beside stabmon's: Python files that register them, or the rules themselves.
        ignore: codes of rules that are not to speak.
        console: print the map of what was found, and findings as they open.
        resume: go on with the run that is there, at ``first_step``.
        first_step: optimizer steps that were taken before.

    Raises:
        ModelError: no attention was found, or a head count is unknown.
        WatchError: the model is watched already or was compiled before, ``log`` names a number that stabmon records, or
            ``name`` is no name for a folder, ``model`` no model or ``optimizer`` no optimizer.
        StoreError: the run cannot be written, or exists already.
        ConfigError: limits, rules or codes that do not exist or cannot be read.
    """
    _refuse_mistaken(model, optimizer)
    refuse_compiled(model)
    if name is not None and not re.match(RUN_NAME, name):
        raise WatchError(
            f"name must be letters, digits and '_', from the second on '.' and '-' too, got {name!r}; "
            "it is the run's folder in dir"
        )
    found = sites(model, heads)
    model_map = map_of(model, found)
    plan = Plan(model_map.attentions, _checked(log, model_map), optimizer=optimizer is not None)
    options = new_run.RunOptions(dir, name, config, sinks, limits, rules, ignore, console, resume)
    claim(model, found)
    try:
        run = new_run.start(model, model_map, plan, options)
        recording = Recording(plan, new_run.device_of(model), schedule.rows)
        monitor = Monitor(recording, run.recorder, schedule, run.path, model_map, first_step)
    except BaseException:
        release(found)
        raise
    monitor.attach(model, optimizer, found, scaler)
    return monitor


def _refuse_mistaken(model: object, optimizer: object) -> None:
    """Raise before anything is written, where ``model`` is no model or ``optimizer`` no optimizer."""
    if not isinstance(model, nn.Module):
        raise WatchError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if optimizer is not None and not hasattr(optimizer, "register_step_post_hook"):
        raise WatchError(
            f"optimizer must be a torch optimizer, got {type(optimizer).__name__}; "
            "leave it out and call monitor.step() after each step"
        )


def _checked(log: Sequence[str], model_map: ModelMap) -> tuple[str, ...]:
    if isinstance(log, str):
        raise WatchError(f"log must be a sequence of names, got the text {log!r}; write log=({log!r},)")
    own = set(Plan(model_map.attentions, optimizer=True, at_start=False).columns)
    if taken := sorted(own & set(log)):
        raise WatchError(f"log names {', '.join(taken)}, which stabmon records itself; choose another name")
    return tuple(dict.fromkeys(log))
