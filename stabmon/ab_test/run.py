"""A trial on a configured run: stabmon builds the model, and trains it as the configuration says."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import nn

from stabmon.ab_test.report import Arm, TrialReport
from stabmon.config import RunConfig, override
from stabmon.errors import FixError
from stabmon.fixes import apply_to_config, config_diff, registry
from stabmon.fixes.change import Applied
from stabmon.fixes.record import Fix
from stabmon.workloads import training

_FRESH = 1_000_003
"""Added to the seed of the data after a first training, which has seen that of the seed itself."""


def trial_of_run(
    config: RunConfig,
    fixes: Sequence[Fix],
    *,
    steps: int = 40,
    seeds: int = 3,
    after: int = 0,
    device: str | torch.device = "cpu",
    progress: training.Progress | None = None,
) -> TrialReport:
    """Train ``config`` for ``steps`` with and without ``fixes``, from the same state on the same data.

    Args:
        config: the run; its seed is the first of the trial's, and the next ones follow it. Learning rate and warm-up
            are those of a training of ``steps`` steps.
        fixes: applied together; those of the model in place, layer by layer, those of the training to the
            configuration.
        steps: optimizer steps of each side.
        seeds: how often both sides are trained, each from weights and data of its own.
        after: steps that are trained without the fix first, so that it meets a half-trained model; both sides then go
            on with a fresh optimizer.
        device: where to train.
        progress: called with the steps done, over all sides and seeds, and the loss.

    Raises:
        FixError: a fix cannot be applied to this run.
        ValueError: ``steps`` or ``seeds`` is below 1, or no fix was given.
    """
    if not fixes or min(steps, seeds) < 1:
        raise ValueError(f"a trial needs a fix, steps and seeds, got {len(fixes)}, {steps} and {seeds}")
    fixes = [part for fix in fixes for part in fix.parts]
    of_data = next((kind for kind in (registry.find(fix.kind) for fix in fixes) if kind.of_data), None)
    if of_data is not None:
        message = f"the {of_data.title} is that of the data, which both sides of a trial must share"
        raise FixError(f"{message}; try another fix")
    whole = _with_fixes(config, fixes)
    of_model = [fix for fix in fixes if not fix.of_training]
    of_training = [fix for fix in fixes if fix.of_training]
    sides: dict[bool, list[training.TrainingResult]] = {False: [], True: []}
    applied: list[Applied] = []
    for seed in range(seeds):
        run = override(config, {"training.seed": config.training.seed + seed, "training.evaluate_length": None})
        state = _state(run, after, device)
        for fixed in (False, True):
            model, side = deepcopy(state), _short(run, steps, after)
            if fixed:
                applied, side = [fix.apply(model) for fix in of_model], _with_fixes(side, of_training)
            report = None if progress is None else _after(progress, (2 * seed + fixed) * steps)
            sides[fixed].append(training.train(side, model=model, device=device, progress=report))
    without, with_fix = (Arm.of([one.losses for one in side], side[0].findings) for side in sides.values())
    return TrialReport.of(fixes, applied, config_diff(config, whole), without, with_fix)


def _short(config: RunConfig, steps: int, after: int) -> RunConfig:
    seed = config.training.seed + (_FRESH if after else 0)
    return override(config, {"training.steps": steps, "training.seed": seed})


def _with_fixes(config: RunConfig, fixes: Sequence[Fix]) -> RunConfig:
    """Return ``config`` with ``fixes``: of those that each layer has, one."""
    for fix in {fix.kind: fix for fix in reversed(fixes)}.values():
        config = apply_to_config(fix, config)
    return config


def _state(config: RunConfig, after: int, device: str | torch.device) -> nn.Module:
    model = training.build(config, device)
    if after:
        training.train(override(config, {"training.steps": after}), model=model, device=device, watch=False)
    return model


def _after(progress: training.Progress, done: int) -> training.Progress:
    return lambda step, loss: progress(done + step, loss)
