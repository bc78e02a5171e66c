"""The arguments of ``watch``, checked before anything is made: a wrong one leaves no folder, thread or hook."""

from collections.abc import Collection, Mapping
from numbers import Integral
from typing import Any

from torch import nn

from stabmon.distributed.shards import waits_for_others
from stabmon.errors import ArgumentError
from stabmon.monitor.live_race import WAITS, Race
from stabmon.monitor.optimizers import with_hooks
from stabmon.schedule import Schedule

_SINK = ("start", "sample", "findings", "close")


def check_model(model: object, optimizer: object) -> None:
    """Refuse what is no model, what is no optimizer, and the optimizer of another model.

    Raises:
        ArgumentError: the message says what was expected and what came.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ArgumentError(
            f"this {type(model).__name__} has parameters on the meta device, which hold no numbers; load or initialise "
            "them first, model.to_empty(device=...) and then their values"
        )
    if optimizer is None:
        return
    optimizers = with_hooks(optimizer)
    if not optimizers:
        raise ArgumentError(
            f"optimizer must be a torch optimizer, or a sequence of them, got {type(optimizer).__name__}; "
            "leave it out and call monitor.step() after each step"
        )
    own = {id(p) for p in model.parameters()}
    for one in optimizers:
        given = {id(p) for group in one.param_groups for p in group.get("params", ())}
        if given and own and not given & own:
            raise ArgumentError(
                f"optimizer must hold parameters of this {type(model).__name__}, got one whose {len(given)} parameters "
                "are all another model's; give the optimizer that trains the model that you watch"
            )


def check_options(
    *,
    schedule: object,
    scaler: object,
    sinks: object,
    ignore: object,
    first_step: object,
    resume: object,
    name: object,
) -> None:
    """Refuse options of another kind or range than ``watch`` describes.

    Raises:
        ArgumentError: the message says what was expected and what came.
    """
    _expect(isinstance(schedule, Schedule), "schedule", "a stabmon.Schedule", schedule)
    _expect(first_step is None or _is_count(first_step, 0), "first_step", "a whole number of at least 0", first_step)
    _expect(
        scaler is None or all(callable(getattr(scaler, part, None)) for part in ("get_scale", "scale", "step")),
        "scaler",
        "a torch.amp.GradScaler",
        scaler,
    )
    for sink in _many("sinks", sinks):
        missing = [part for part in _SINK if not callable(getattr(sink, part, None))]
        if missing or not isinstance(getattr(sink, "name", None), str):
            raise ArgumentError(
                f"sinks must hold objects with a name and the methods {', '.join(_SINK)} (stabmon.sinks.Sink), got "
                f"{type(sink).__name__} without {', '.join(missing) or 'a name'}"
            )
    for code in _many("ignore", ignore):
        _expect(isinstance(code, str), "ignore", "a sequence of rules' codes", code)
    if resume and name is None:
        raise ArgumentError("resume needs the name of the run to go on with: pass name=...")


def check_race(race: object, model: nn.Module, optimizer: object) -> Race | None:
    """Return the options of a race, None where there is to be none.

    Raises:
        ArgumentError: it is of another kind or range, there is not one optimizer to copy, or a pass of ``model`` waits
            for other processes.
    """
    if race is False or race is None:
        return None
    _expect(race is True or isinstance(race, Race), "race", "True, False or a stabmon.Race", race)
    chosen = race if isinstance(race, Race) else Race()
    _expect(_is_count(chosen.every, 1), "race.every", "a whole number of at least 1", chosen.every)
    _expect(_is_count(chosen.steps, 1), "race.steps", "a whole number of at least 1", chosen.steps)
    if len(with_hooks(optimizer)) != 1:
        raise ArgumentError(
            "a race needs one optimizer, a copy of which trains each shadow: pass watch(model, optimizer)"
        )
    if waits_for_others(model):
        raise ArgumentError(WAITS)
    return chosen


def _many(name: str, given: object) -> Collection[Any]:
    if given is None:
        return ()
    is_many = isinstance(given, Collection) and not isinstance(given, str | bytes | Mapping)
    _expect(is_many, name, "a sequence", given)
    assert isinstance(given, Collection)
    return given


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _expect(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        shown = repr(got) if isinstance(got, str | int | float | None) else type(got).__name__
        raise ArgumentError(f"{name} must be {expected}, got {shown:.80}")
