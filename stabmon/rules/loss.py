"""Rules about the loss, LOS."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from stabmon.fixes.record import Fix
from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import baseline, suggested_fixes
from stabmon.rules.baseline import NORMAL, Spike, median
from stabmon.rules.families import GradientLimits, LossLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside
from stabmon.rules.view import HOLD, Hit, Run

Floats64 = npt.NDArray[np.float64]

CAUSES = (
    *("UPD001", "UPD002", "ATT001", "ATT002", "ATT003", "ATT005", "ATT006", "ATT008"),
    *("CFG001", "GRD001", "GRD002"),
)


@rule("LOS001", "loss-spike", severity=Severity.WARNING, evidence=Evidence.LITERATURE, symptom_of=(*CAUSES, "LOS004"))
def loss_spike(run: Run, limits: LossLimits) -> Iterator[Observation]:
    """Flag a loss far above its recent past.

    What it checks: the loss against the median of the last ``limits.window`` samples plus ``limits.deviations_max``
        robust standard deviations (1.4826 times the median absolute deviation, at least ``limits.spread_floor`` of the
        median), once there are ``limits.samples_min``; at least ``limits.rise_min`` above the median, and
        ``limits.rise_of_start_min`` of the loss at the run's start or of the fall since, whichever is larger. A median
        below zero gives no share: of a loss that can be negative the level says nothing, and the deviations and the
        fall decide. A spike is a warning when it lasts
        ``limits.confirmations`` samples or is one of more than ``limits.isolated_max`` in the window; an isolated one
        is information.
    Why it matters: a loss that does not recover within a few steps is a divergence, and its cost grows with every step.
    Suggested fix: for an isolated one clipping, where gradients are not clipped. Else go back to a checkpoint before
        it, with a lower learning rate or a longer warm-up. If a finding about attention opened earlier, its fix comes
        first: the loss shows problems of attention late or never.
    When the fix is wrong: for a single bad batch, or a data set whose loss is heavy-tailed (small batches,
        reinforcement learning): raise the number of deviations.
    References: OLMo-core (mean + 6σ of the last 128 steps; here with median and deviation from it, which a spike does
        not move); arXiv 2304.13013 (loss spikes follow Adam's second moment by 1 to 8 steps).
    """
    found = baseline.loss_spike(run, limits)
    if found is not None:
        severity = Severity.INFO if found.isolated else Severity.WARNING
        yield Observation(found.hit, partial(_explain, run, found), partial(_fixes, run, found), severity=severity)


def _fixes(run: Run, found: Spike) -> tuple[Fix, ...]:
    if found.isolated:
        return suggested_fixes.if_unclipped(run)
    return suggested_fixes.slower("the loss has stayed above its recent median")


def _explain(run: Run, found: Spike) -> Explanation:
    message = (
        f"loss {number(found.hit.value)}, limit {number(found.hit.limit)}: "
        f"{number(found.deviations)} robust standard deviations above the usual {number(found.usual)}"
        f"{beside(run, None, 'total_gradient_norm', 'learning_rate')}"
    )
    cause = "one step only: those before it are as usual" if found.isolated else "the loss does not recover"
    return Explanation(message, cause, run.cells(None, "loss", "total_gradient_norm", "learning_rate"))


@rule(
    "LOS002",
    "loss-divergence",
    severity=Severity.ERROR,
    evidence=Evidence.MEASURED,
    symptom_of=(*CAUSES, "LOS001", "NUM002"),
)
def loss_divergence(run: Run, limits: LossLimits) -> Iterator[Observation]:
    """Flag a loss that has risen from its best value and does not recover.

    What it checks: the median loss of the last ``limits.lasting`` samples against ``limits.rise_max`` times the best
        such median of the last ``limits.window`` samples before them, where that is above zero; the rise must also be
        ``limits.rise_of_learnt_min`` of the fall from the start to the best, because a loss near zero varies by a fifth
        from batch to batch, ``limits.rise_min``, and ``limits.deviations_max`` standard errors of the difference of two
        such medians: from the robust standard deviation of the losses in their blocks of ``limits.lasting`` (1.25 of
        it over the root of half their number), or from that of the changes between blocks, whichever is larger.
    Why it matters: such a run rarely recovers by itself, and every further step is wasted.
    Suggested fix: go back to a checkpoint before the rise with a lower learning rate. Where another finding opened
        earlier, its fix comes first.
    When the fix is wrong: where the data or the loss changed at that step: a new phase of a curriculum, longer
        sequences, a warm restart of the rate.
    References: Wortsman et al., arXiv 2309.14322 (divergence after logit growth); measured: losses of healthy runs vary
        by a tenth from sample to sample, medians of 16 by 3 %.
    """
    series, lasting = run.series("loss"), limits.lasting
    past = series.past(lasting - 1 + limits.window)[:, 0] if series.spots else np.empty(0)
    before = past[: len(past) - lasting + 1].astype(np.float64)
    count, enough = len(before) // lasting, max(1, lasting // 2)
    if count < 2:
        return
    recent = np.append(past[len(past) - lasting + 1 :], series.now).astype(np.float64)
    # Cheap first: the best median is not below the smallest value.
    smallest = float(np.fmin.reduce(before))
    least = smallest + HOLD * (limits.rise_max - 1) * max(smallest, 0.0)
    usable = recent[np.isfinite(recent)]
    if len(usable) < enough or 2 * np.count_nonzero(usable > least) < len(usable):
        return
    finite = (block[np.isfinite(block)] for block in before[-count * lasting :].reshape(count, lasting))
    blocks = [block for block in finite if len(block) >= enough]
    if not blocks:
        return
    now, medians = median(usable), np.array([median(block) for block in blocks])
    best = float(medians.min())
    learnt = float(series.start[0]) - best
    error = limits.deviations_max * _error_of_difference(blocks, medians)
    allowed = max(max(best, 0.0) * (limits.rise_max - 1), limits.rise_of_learnt_min * learnt, limits.rise_min, error)
    excess = (now - best) / allowed
    if excess > HOLD:
        hit = Hit("loss", None, None, now, best + allowed, excess, 1, 1)
        yield Observation(hit, partial(_explain_rise, run, hit, best), partial(_slower, run))


def _error_of_difference(blocks: Sequence[Floats64], medians: Floats64) -> float:
    """Return the standard error of the difference of two blocks' medians: by noise in them, or between where it lasts.

    A steady trend is in neither: the fall of a loss in training is no noise.
    """
    spreads = np.array([_deviation(block - middle) for block, middle in zip(blocks, medians, strict=True)])
    inside = 1.25 * median(spreads) / math.sqrt(len(blocks[0]) / 2)
    if len(medians) < 4:
        return inside
    changes = np.diff(medians)
    return max(inside, _deviation(changes - median(changes)))


def _deviation(residuals: Floats64) -> float:
    """Return the robust standard deviation of ``residuals`` from 0."""
    return NORMAL * median(np.abs(residuals))


def _slower(run: Run) -> tuple[Fix, ...]:
    return suggested_fixes.calmer(run, "the loss has risen and does not recover")


def _explain_rise(run: Run, hit: Hit, best: float) -> Explanation:
    others = beside(run, None, "total_gradient_norm", "learning_rate")
    message = f"median loss {number(hit.value)}, limit {number(hit.limit)}, best {number(best)}{others}"
    return Explanation(
        message,
        "the loss rises from its best value and does not recover",
        run.cells(None, "loss", "total_gradient_norm", "learning_rate"),
    )


@rule(
    "LOS003",
    "loss-not-falling",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=(*CAUSES, "GRD004", "LOS002"),
)
def loss_not_falling(run: Run, limits: LossLimits) -> Iterator[Observation]:
    """Flag a run whose loss has not fallen since the start.

    What it checks: once ``limits.plateau_samples`` samples were taken, the median loss of the last ``limits.lasting``
        against ``limits.plateau_share_min`` of its mean at the run's start, unless that is below ``limits.rise_min``.
    Why it matters: every healthy run at least nearly halves its loss in as many steps; otherwise the learning rate is
        far too low or too high, gradients do not reach the weights, or the targets do not match the inputs.
    Suggested fix: with small gradients (GRD004) remove their cause; else a higher learning rate.
    When the fix is wrong: for a pretrained model: fine-tuning changes the loss little. Ignore the rule there.
    References: measured: 0.03 to 0.55 of the start after 160 steps in healthy language, vision and speech runs.
    """
    series = run.series("loss")
    if run.samples < limits.plateau_samples or not series.spots:
        return
    start = float(series.start[0])
    if start < limits.rise_min:
        return
    limit = limits.plateau_share_min * start
    # Cheap first: one value far below the limit is enough to see that the loss has fallen.
    if not 0 < 0.9 * limit < series.now[0]:
        return
    past = np.append(series.past(limits.lasting - 1)[:, 0], series.now).astype(np.float64)
    usable = past[np.isfinite(past)]
    now = median(usable) if len(usable) else 0.0
    if now > 0.95 * limit:
        hit = Hit("loss", None, None, now, limit, now / limit, 1, 1)
        yield Observation(hit, partial(_explain_stuck, run, hit, start), partial(suggested_fixes.for_stuck_loss, run))


def _explain_stuck(run: Run, hit: Hit, start: float) -> Explanation:
    others = beside(run, None, "learning_rate", "total_gradient_norm")
    message = f"median loss {number(hit.value)} after {run.samples} samples, {number(start)} at the start{others}"
    return Explanation(message, "the optimizer's updates have no effect", run.cells(None, "loss", "learning_rate"))


@rule("LOS004", "bad-batch", severity=Severity.INFO, evidence=Evidence.MEASURED)
def bad_batch(run: Run, limits: LossLimits) -> Iterator[Observation]:
    """Flag a single step whose loss and gradient are both spikes.

    What it checks: whether the loss and the total gradient norm are spikes at the same sample, each isolated (as LOS001
        and GRD001 have it), with the limits of the loss.
    Why it matters: a corrupt record, a wrong target or an empty sequence looks like this: one batch, both numbers, no
        earlier sign. The model is not the cause, and clipping limits the damage.
    Suggested fix: look at the data of that step; clip gradients where they are not clipped.
    When the fix is wrong: where more spikes follow: LOS001 and GRD001 are then warnings of their own.
    References: the detector that logs bad batches in issue 391 of marin-community/levanter; measured: a batch of noise
        made the loss 7.8 instead of 2.7 and the gradient norm 2.6 instead of 0.5, and had no effect five steps later.
    """
    found = baseline.loss_spike(run, limits)
    if found is None or not found.isolated or found.hit.excess <= 1:
        return
    gradient = baseline.gradient_spike(run, limits, GradientLimits())
    if gradient is not None and gradient.isolated and gradient.hit.excess > 1:
        yield Observation(
            found.hit, partial(_explain_bad, run, found, gradient), partial(suggested_fixes.if_unclipped, run)
        )


def _explain_bad(run: Run, loss: Spike, gradient: Spike) -> Explanation:
    message = (
        f"loss {number(loss.hit.value)} where {number(loss.usual)} is usual, and gradient norm "
        f"{number(gradient.hit.value)} where {number(gradient.usual)} is, in the same step"
    )
    return Explanation(message, "the data of this one step", run.cells(None, "loss", "total_gradient_norm"))
