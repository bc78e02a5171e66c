"""The first suggested fix of a failed run, carried out: from step 0, and live at the step of the finding."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from torch import nn

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.runs import Job, retrain
from stabmon.evaluation.verdict import loud
from stabmon.fixes import apply, apply_to_config
from stabmon.nn.self_attention import SelfAttention
from stabmon.records import Finding, Fix, FixKind, Key
from stabmon.workloads.intervention import Intervention


class Repair(NamedTuple):
    """A fix to be carried out on a run of its own; ``step`` is None where it holds from step 0."""

    run: str
    fix: Fix
    step: int | None
    job: Job

    @property
    def kind(self) -> FixKind:
        """The kind of the fix."""
        return self.fix.kind


def first_fix(findings: Iterable[Finding], warned: Mapping[Key, int]) -> tuple[Finding, Fix] | None:
    """Return the first fix of the first alarm that has one, and its finding; without alarms, of what is information.

    That is what the user of a run that failed finds first. ``warned`` holds the steps at which findings became alarms.
    """
    own = [finding for finding in findings if finding.follows is None]
    named = (finding for finding in (*loud(own, warned), *sorted(own, key=lambda one: one.opened)) if finding.fixes)
    return next(((finding, finding.fixes[0]) for finding in named), None)


def from_start(run: Outcome, findings: Iterable[Finding], folder: Path, warned: Mapping[Key, int]) -> Repair | None:
    """Return the training of ``run`` with its first fix from step 0; None where there is none that can be made."""
    first = first_fix(findings, warned)
    if first is None:
        return None
    try:
        mended = apply_to_config(first[1], run.run_config)
    except FixError:
        return None
    return _repair(run, first[1], None, mended, folder)


def live(run: Outcome, findings: Iterable[Finding], folder: Path, warned: Mapping[Key, int]) -> Repair | None:
    """Return the training of ``run`` in which the first fix is applied after the step at which it was first told."""
    first = first_fix(findings, warned)
    if first is None:
        return None
    finding, fix = first
    step = warned.get(finding.key, finding.opened) + 1
    if step >= len(run.losses):
        return None
    if fix.kind in (FixKind.PRE_NORM, FixKind.POSITION):
        return None  # another model, which cannot be made of this one while it trains
    if fix.kind.of_training and _refused(fix, run.run_config):
        return None
    return _repair(run, fix, step, run.run_config, folder)


def carry_out(repair: Repair) -> Outcome:
    """Train the run with its fix."""
    config, step = repair.job.config, repair.step
    if step is None:
        return retrain(repair.job)
    if repair.kind.of_training:
        later = apply_to_config(repair.fix, config).training
        return retrain(repair.job, Intervention(step, _nothing, later))
    return retrain(repair.job, Intervention(step, partial(apply_everywhere, fix=repair.fix), config.training))


def apply_everywhere(model: nn.Module, fix: Fix) -> None:
    """Apply ``fix`` to every attention of ``model``, as a user does who is told of one layer; some may have it already.

    Raises:
        FixError: no layer took it.
    """
    refused: list[FixError] = []
    names = [name for name, module in model.named_modules() if isinstance(module, SelfAttention)]
    for name in names:
        try:
            apply(fix.model_copy(update={"module": name}), model)
        except FixError as error:
            refused.append(error)
    if len(refused) == len(names):
        raise refused[0] if refused else FixError(f"{fix}: the model has no attention to change")


def _refused(fix: Fix, config: RunConfig) -> bool:
    try:
        apply_to_config(fix, config)
    except FixError:
        return True
    return False


def _nothing(model: nn.Module) -> None:
    """Leave the model as it is: the fix is in the training's settings."""


def _repair(run: Outcome, fix: Fix, step: int | None, config: RunConfig, folder: Path) -> Repair:
    when = "start" if step is None else f"step-{step}"
    settings = config.model_dump(mode="json")
    known = json.dumps([settings, fix.kind, fix.value, fix.setting, step], sort_keys=True)
    name = f"{run.name}.{fix.kind}.{when}.{sha256(known.encode()).hexdigest()[:8]}"
    return Repair(run.name, fix, step, Job(config, folder / name, run.device))
