"""Rules about the size of the weights' updates, UPD, measured by the residual stream."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.fixes.record import Fix
from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import suggested_fixes
from stabmon.rules.families import UpdateLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside, over_limit
from stabmon.rules.view import Hit, Run


@rule("UPD001", "missing-warm-up", severity=Severity.WARNING, evidence=Evidence.MEASURED)
def missing_warm_up(run: Run, limits: UpdateLimits) -> Iterator[Observation]:
    """Flag first steps at the full learning rate after which the residual stream jumps.

    What it checks: within the first ``limits.first_steps`` steps, the rms of each block's output against
        ``limits.stream_jump_max`` times that of the step before and ``limits.jumped_stream_min``, where the first step
        had at least ``limits.full_rate_share`` of the largest learning rate so far. The finding stays open while the
        stream is that far above its first value, within ``limits.early_steps`` steps.
    Why it matters: Adam's first steps have the size of the learning rate whatever the gradient is, so small initial
        weights are overwritten before the model has seen much data.
    Suggested fix: a linear warm-up over some hundred steps; then a lower learning rate.
    When the fix is wrong: where weights are loaded without the optimizer's state: a short warm-up is enough there.
    References: Xiong et al., arXiv 2002.04745 (why warm-up); the 5,000 steps of the runs behind arXiv 2409.04431;
        measured, 4 layers, n = 128: without warm-up 2.51 instead of 2.30 at learning rate 2e-2, 2.70 at 6e-2.
    """
    series = run.series("residual_out")
    if run.step >= limits.early_steps or not series.spots:
        return
    before = series.past(1)
    hits = []
    if len(before) and run.step < limits.first_steps and _starts_at_full_rate(run, limits):
        hits = series.above(np.maximum(limits.jumped_stream_min, limits.stream_jump_max * before[-1]))
    hit = next((hit for hit in hits if hit.excess > 1), None)
    if hit is not None:
        yield Observation(hit, partial(_explain_jump, run, hit), partial(_warmer, run), one_for_the_run=True)
        return
    held = series.above(np.maximum(limits.jumped_stream_min, limits.stream_jump_max * series.first))
    if held:
        hit = held[0]._replace(excess=1.0)
        yield Observation(hit, partial(_explain_jump, run, hit), opens=False, one_for_the_run=True)


def _starts_at_full_rate(run: Run, limits: UpdateLimits) -> bool:
    rate = run.series("learning_rate")
    if not rate.spots:
        return False
    largest = np.fmax.reduce(np.append(rate.past(limits.first_steps)[:, 0], rate.now))
    return bool(rate.first[0] >= limits.full_rate_share * largest > 0)


def _warmer(run: Run) -> tuple[Fix, ...]:
    return suggested_fixes.warmer(run, "the first updates are then a small share of the weights")


def _explain_jump(run: Run, hit: Hit) -> Explanation:
    before = run.past(1)[-1, run.series("residual_out").columns_of(hit.layer)]
    times = float(np.float64(hit.value) / before[0])
    message = (
        f"rms of the stream after {hit.layer} {number(hit.value)}, {number(times)} times that "
        f"of the step before{beside(run, None, 'learning_rate', 'loss')}"
    )
    cause = "the first steps were taken at the full learning rate"
    return Explanation(message, cause, run.cells(hit.layer, "residual_out") + run.cells(None, "learning_rate", "loss"))


@rule(
    "UPD002",
    "learning-rate-too-high",
    severity=Severity.WARNING,
    evidence=Evidence.MEASURED,
    symptom_of=("UPD001", "ATT001", "ATT003", "ATT008"),
)
def learning_rate_too_high(run: Run, limits: UpdateLimits) -> Iterator[Observation]:
    """Flag a residual stream that grows many times over in the first steps.

    What it checks: within the first ``limits.early_steps`` steps, the rms of each block's output against
        ``limits.stream_growth_max`` times its first value and ``limits.grown_stream_min``, for ``limits.confirmations``
        samples in a row. It is information up to ``limits.harmful_stream_growth_min`` times.
    Why it matters: Adam moves each weight by about the learning rate a step. At a rate that is too high for the size of
        the weights the stream grows a thousandfold within twenty steps, the norms then reduce every later update by as
        much, and the run continues at a higher loss with smaller gradients, which look healthy.
    Suggested fix: pre-norm in place of post-norm; QK norm where it is missing, which allows a higher rate; else a lower
        learning rate.
    When the fix is wrong: where logits grew first: ATT003 is the cause, and this finding is listed under it.
    References: arXiv 2410.16682 (all linear outputs grow each step at a high rate); measured, 4 layers, n = 128: 2.57
        at learning rate 6e-2 with a stream 1,024 times its start, 2.30 at 2e-2 with 20 times.
    """
    series = run.series("residual_out")
    hits = series.above(np.maximum(limits.grown_stream_min, limits.stream_growth_max * series.first))
    hit = next((hit for hit in hits if hit.excess > 1), hits[0] if hits else None)
    if hit is not None:
        with np.errstate(all="ignore"):
            grown = float(np.nanmax(series.now / series.first))
        yield Observation(
            hit,
            partial(_explain_growth, run, hit),
            partial(suggested_fixes.for_high_rate, run, hit.layer),
            opens=run.step < limits.early_steps,
            confirmations=limits.confirmations,
            severity=None if grown >= limits.harmful_stream_growth_min else Severity.INFO,
            one_for_the_run=True,
        )


def _explain_growth(run: Run, hit: Hit) -> Explanation:
    others = ("attention_norm", "query_norm", "logit_std")
    message = over_limit(hit) + beside(run, hit.layer, *others) + beside(run, None, "learning_rate")
    cause = "each update is large compared with the weights, so the branches grow from step to step"
    return Explanation(message, cause, run.cells(hit.layer, "residual_out", *others) + run.cells(None, "learning_rate"))
