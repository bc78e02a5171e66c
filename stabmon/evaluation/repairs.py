"""Retraining of a failed run with its suggested fixes: the first, then a second from step 0, and the first live."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from torch import nn

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.evaluation.judge import How
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.runs import Job, record, retrain
from stabmon.evaluation.verdict import as_alarms
from stabmon.findings import Finding, Key
from stabmon.fixes import apply_to_config, registry
from stabmon.fixes.record import Fix
from stabmon.nn.self_attention import SelfAttention
from stabmon.workloads.intervention import Intervention


class Repair(NamedTuple):
    """A fix to be applied in a run of its own; ``step`` is None where it holds from step 0."""

    run: str
    fix: Fix
    step: int | None
    job: Job
    is_second: bool = False
    """True if it comes on top of a first one."""

    @property
    def how(self) -> How:
        """The way it is applied."""
        return "live" if self.step is not None else "second" if self.is_second else "first"


def first_fix(findings: Iterable[Finding], warned: Mapping[Key, int]) -> tuple[Finding, Fix] | None:
    """Return the first fix of the first alarm that has one, and its finding; without alarms, of what is information.

    That is what the user of a run that failed finds first. ``warned`` holds the steps at which findings became alarms.
    """
    return next(((finding, finding.fixes[0]) for finding in _in_order(findings, warned)), None)


def from_start(run: Outcome, findings: Iterable[Finding], folder: Path, warned: Mapping[Key, int]) -> Repair | None:
    """Return the training of ``run`` with its first fix from step 0; None where there is none that can be made."""
    first = first_fix(findings, warned)
    fixed = None if first is None else _fixed(first[1], run.run_config)
    return None if first is None or fixed is None else _repair(run, first[1], None, fixed, folder)


def again(first: Repair, run: Outcome, findings: Iterable[Finding], warned: Mapping[Key, int]) -> Repair | None:
    """Return the training of ``run`` with a second fix; ``run`` is the original one with its ``first`` fix, and failed.

    findings: those of ``run``. The second fix is the first that they name and that changes anything.
    """
    for finding in _in_order(findings, warned):
        for fix in finding.fixes:
            fixed = _fixed(fix, run.run_config)
            if fixed not in (None, run.run_config):
                second = _repair(run, fix, None, fixed, first.job.folder.parent)
                return second._replace(run=first.run, is_second=True)
    return None


def live(run: Outcome, findings: Iterable[Finding], folder: Path, warned: Mapping[Key, int]) -> Repair | None:
    """Return the training of ``run`` in which the first fix is applied after the step of its first finding."""
    first = first_fix(findings, warned)
    if first is None:
        return None
    finding, fix = first
    step = warned.get(finding.key, finding.opened) + 1
    is_late = step >= len(run.losses)
    if (
        is_late
        or not all(registry.find(part.kind).while_training for part in fix.parts)
        or _fixed(fix, run.run_config) is None
    ):
        return None
    return _repair(run, fix, step, run.run_config, folder)


def carry_out(repair: Repair) -> Outcome:
    """Train the run with its fix; from step 0 on with the monitor, whose findings may name a second one."""
    config, step = repair.job.config, repair.step
    if step is None:
        return record(repair.job)
    later = apply_to_config(repair.fix, config).training
    return retrain(repair.job, Intervention(step, partial(apply_everywhere, fix=repair.fix), later))


def apply_everywhere(model: nn.Module, fix: Fix) -> None:
    """Apply ``fix`` to every attention of ``model``, as the user of one layer's finding does; some may have it already.

    What of it is not in the model is left to the training's settings.

    Raises:
        FixError: no layer took a part of it.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, SelfAttention)]
    for part in fix.parts:
        if part.of_training:
            continue
        refused: list[FixError] = []
        for name in names:
            try:
                part.model_copy(update={"module": name}).apply(model)
            except FixError as error:
                refused.append(error)
        if len(refused) == len(names):
            raise refused[0] if refused else FixError(f"{part}: the model has no attention to change")


def _in_order(findings: Iterable[Finding], warned: Mapping[Key, int]) -> list[Finding]:
    """Return the findings that have a fix and are no symptom: alarms first, then information."""
    own = [finding for finding in findings if finding.follows is None and finding.fixes]
    return [*as_alarms(own, warned), *sorted(own, key=lambda one: one.opened)]


def _fixed(fix: Fix, config: RunConfig) -> RunConfig | None:
    """Return ``config`` with ``fix``, or None where it cannot be made in it."""
    try:
        return apply_to_config(fix, config)
    except FixError:
        return None


def _repair(run: Outcome, fix: Fix, step: int | None, config: RunConfig, folder: Path) -> Repair:
    when = "start" if step is None else f"step-{step}"
    settings = config.model_dump(mode="json")
    parts = [(part.kind, part.value, part.setting) for part in fix.parts]
    known = json.dumps([settings, parts, step], sort_keys=True)
    name = f"{run.name}.{fix.kind}.{when}.{sha256(known.encode()).hexdigest()[:8]}"
    return Repair(run.name, fix, step, Job(config, folder / name, run.device))
