"""A trial on the user's own model: deep copies are trained, the model itself is left as it is."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from stabmon.ab_test.report import Arm, TrialReport
from stabmon.errors import FixError
from stabmon.findings import Finding
from stabmon.fixes import registry, source_diff, together
from stabmon.fixes.change import Applied
from stabmon.fixes.record import Fix
from stabmon.fixes.training_loop import Loop
from stabmon.generators import same_torch_generators
from stabmon.monitor import watch
from stabmon.schedule import Schedule

Progress = Callable[[int, float], None]


def trial(
    model: nn.Module,
    fix: Fix | Sequence[Fix],
    step: Callable[[nn.Module, int], Tensor],
    *,
    optimizer: Callable[[nn.Module], Optimizer] | None = None,
    steps: int = 50,
    seeds: int = 3,
    progress: Progress | None = None,
) -> TrialReport:
    """Train copies of ``model`` with and without ``fix`` from the same state on the same data, and compare them.

    Both sides of a seed get the same calls with the same random state. Weights, gradients, buffers, training flags and
    torch's random state are as before afterwards; the copies start with a fresh optimizer on both sides.

    Args:
        model: any module in which stabmon finds attention, new or trained.
        fix: one, or several that are applied together, such as one a layer; those of the training (learning rate,
            warm-up, clipping) change the optimizer and the loop of the copy.
        step: called with the copy and the number of the batch, returns the loss, a scalar with its graph; what it draws
            by torch's global generator is the same on both sides. Seed s gets the batches s·steps to (s + 1)·steps - 1.
        optimizer: makes the optimizer of a copy; default AdamW at a rate of 1e-3.
        steps: optimizer steps of each side.
        seeds: how often both sides are trained.
        progress: called after each step with the number of steps so far, over all sides and seeds, and the loss.

    Raises:
        FixError: the fix cannot be applied to this model, or its precision or length is decided inside ``step``.
        ModelError: stabmon finds no attention in the model.
        ValueError: ``steps`` or ``seeds`` is below 1, or no fix was given.
    """
    fixes = tuple(part for one in ((fix,) if isinstance(fix, Fix) else fix) for part in one.parts)
    _check(fixes, steps, seeds)
    plain = Loop()
    changed = _changed(plain, fixes)
    sides: dict[bool, list[_Trained]] = {False: [], True: []}
    for seed in range(seeds):
        for fixed in (False, True):
            done = (2 * seed + fixed) * steps
            report = None if progress is None else _after(progress, done)
            side = (fixes, changed) if fixed else ((), plain)
            sides[fixed].append(_train(model, *side, step, optimizer, steps, seed, report))
    without, with_fix = (Arm.of([one.losses for one in side], side[0].findings) for side in sides.values())
    diff = source_diff(together(*fixes), model)
    return TrialReport.of(fixes, sides[True][0].applied, diff, without, with_fix)


class _Trained(NamedTuple):
    losses: list[float]
    findings: tuple[Finding, ...]
    applied: list[Applied]


def _check(fixes: Sequence[Fix], steps: int, seeds: int) -> None:
    if not fixes:
        raise ValueError("a trial needs a fix, got none; pass finding.fix, or one of stabmon.fixes")
    if min(steps, seeds) < 1:
        raise ValueError(f"steps and seeds must be at least 1, got {steps} and {seeds}")
    for fix in fixes:
        kind = registry.find(fix.kind)
        if kind.of_data:
            message = f"the {kind.title} is that of the data, which both sides of a trial must share"
            raise FixError(f"{message}:\n{fix.diff}")


def _changed(loop: Loop, fixes: Sequence[Fix]) -> Loop:
    """Return ``loop`` with those of ``fixes`` that are of the training."""
    for fix in fixes:
        if fix.of_training:
            loop = registry.find(fix.kind).change_loop(fix, loop)
    return loop


def _train(
    model: nn.Module,
    fixes: Sequence[Fix],
    loop: Loop,
    step: Callable[[nn.Module, int], Tensor],
    optimizer: Callable[[nn.Module], Optimizer] | None,
    steps: int,
    seed: int,
    progress: Progress | None,
) -> _Trained:
    """Train one copy and return its losses; the findings are those of this copy."""
    copy = deepcopy(model).train()
    copy.zero_grad()
    applied = [fix.apply(copy) for fix in fixes if not fix.of_training]
    made = AdamW(copy.parameters(), lr=1e-3) if optimizer is None else optimizer(copy)
    losses = list[Tensor]()
    rates = [group["lr"] for group in made.param_groups]
    watched = watch(copy, made, dir=None, console=False, trackers=False, schedule=Schedule(dense=steps))
    with same_torch_generators(copy), watched as monitor:
        torch.manual_seed(seed)
        for index in range(steps):
            for group, rate in zip(made.param_groups, rates, strict=True):
                group["lr"] = rate * loop.factor(index)
            loss = step(copy, seed * steps + index)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if loop.clip is not None:
                nn.utils.clip_grad_norm_(copy.parameters(), loop.clip)
            made.step()
            made.zero_grad()
            monitor.log(loss=loss)
            losses.append(loss.detach())
            if progress is not None:
                progress(index + 1, loss.item())
        findings = monitor.findings
    return _Trained(torch.stack(losses).float().tolist(), findings, applied)


def _after(progress: Progress, done: int) -> Progress:
    return lambda step, loss: progress(done + step, loss)
