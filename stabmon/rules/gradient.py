"""Rules about spikes and rises of the gradient, GRD."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.findings import Reading
from stabmon.fixes.record import Fix
from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import baseline, suggested_fixes
from stabmon.rules.baseline import Spike, disturbed, falls, rise
from stabmon.rules.families import GradientLimits
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside
from stabmon.rules.view import Hit, Run

CAUSES = ("UPD001", "UPD002", "ATT001", "ATT003", "ATT008", "LOS004")


@rule(
    "GRD001", "gradient-spike", severity=Severity.WARNING, evidence=Evidence.LITERATURE, symptom_of=(*CAUSES, "GRD002")
)
def gradient_spike(run: Run, limits: GradientLimits) -> Iterator[Observation]:
    """Flag a gradient norm far above its recent past.

    What it checks: the logarithm of the total gradient norm against the median of the last ``limits.window`` samples
        plus ``limits.deviations_max`` robust standard deviations (1.4826 times the median absolute deviation, at least
        ``limits.spread_floor``), once there are ``limits.samples_min``. A norm below ``limits.norm_of_start_min`` of
        the run's start, or with elements below ``limits.element_min``, is no spike. A spike is a warning when it lasts
        ``limits.confirmations`` samples or is one of more than ``limits.isolated_max`` in the window, and the loss, if
        it is logged, is above its own recent median; any other is information.
    Why it matters: lasting spikes precede a divergence. Isolated ones do not: healthy speech runs with a fixed b = -log
        n have two to five of them with a smooth loss.
    Suggested fix: for isolated spikes only clipping, where gradients are not clipped (or a learnable bias). For lasting
        ones pre-norm in place of post-norm, clipping, a lower learning rate or a longer warm-up; if logits grow as
        well, ATT003 has the cause.
    When the fix is wrong: where a bad batch caused the spike: LOS004 reports that where it can.
    References: OLMo-core (mean + 6σ of the last 128 steps; here with median and deviation from it, which a spike does
        not move, of the logarithm, because gradient norms vary by factors); ZClip, arXiv 2504.02507; isolated spikes
        with b = -log n as remembered from arXiv 2409.04431.
    """
    found = baseline.gradient_spike(run, limits, limits)
    if found is not None:
        is_lasting = not found.isolated and disturbed(run)
        severity = Severity.WARNING if is_lasting else Severity.INFO
        yield Observation(found.hit, partial(_explain, run, found), partial(_fixes, run, is_lasting), severity=severity)


def _fixes(run: Run, is_lasting: bool) -> tuple[Fix, ...]:
    if not is_lasting:
        return suggested_fixes.if_unclipped(run)
    return suggested_fixes.calmer(run, "the gradient norm has stayed above its usual size")


def _explain(run: Run, found: Spike) -> Explanation:
    blocks = _worst_block(run)
    words = f"; most of it in {blocks[0].layer} ({number(blocks[0].value)})" if blocks else ""
    message = (
        f"total gradient norm {number(found.hit.value)}, limit {number(found.hit.limit)}: "
        f"{number(found.deviations)} robust standard deviations above the usual {number(found.usual)}{words}"
    )
    cause = "one step only: those before it are as usual" if found.isolated else "the spike lasts or recurs"
    return Explanation(message, cause, run.cells(None, "total_gradient_norm", "loss") + blocks)


def _worst_block(run: Run) -> tuple[Reading, ...]:
    series = run.series("gradient_norm")
    now = np.where(np.isfinite(series.now), series.now, -np.inf)
    return (series.cell(int(np.argmax(now))),) if np.isfinite(now).any() else ()


@rule(
    "GRD002",
    "gradient-norm-stays-high",
    severity=Severity.WARNING,
    evidence=Evidence.LITERATURE,
    symptom_of=CAUSES,
)
def gradient_norm_stays_high(run: Run, limits: GradientLimits) -> Iterator[Observation]:
    """Flag a gradient norm that has risen to another level and stays there.

    What it checks: the median total gradient norm of the last ``limits.lasting`` samples against ``limits.rise_max``
        times that of the ``limits.window`` samples before them, once there are ``limits.samples_min``; the median loss
        of the same samples, if it is logged, must not be below that of as many before them.
    Why it matters: with clipping every step then has the same size and a direction dominated by single tokens; without
        clipping the weights diverge. It occurs in language models with sigmoid attention and no bias.
    Suggested fix: clipping where there is none, a lower learning rate; where logits grew, QK norm (ATT003).
    When the fix is wrong: where the batch size or the scale of the loss changed at that step. Gradients also rise when
        a model begins to learn after a plateau, which is why the rule does not apply while the loss falls.
    References: arXiv 2409.04431 on lasting gradient norms of SinCos and RoPE without the bias; ZClip, arXiv 2504.02507.
    """
    found = rise(run, "total_gradient_norm", limits.lasting, limits.window, limits.samples_min, limits.rise_max)
    if found is not None and (found.excess <= 1 or not falls(run, limits.lasting)):
        fixes = partial(suggested_fixes.calmer, run, "the gradient norm has risen to another level")
        yield Observation(found, partial(_explain_rise, run, found), fixes)


def _explain_rise(run: Run, hit: Hit) -> Explanation:
    message = f"median gradient norm {number(hit.value)}, limit {number(hit.limit)}{beside(run, None, 'loss')}"
    newest = run.cells(None, "total_gradient_norm", "loss", "learning_rate")
    return Explanation(message, "something that the gradient depends on has changed permanently", newest)
