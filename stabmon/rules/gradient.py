"""Rules about spikes and rises of the gradient, GRD."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.findings import Cell
from stabmon.fixes.record import Fix
from stabmon.formatting import number
from stabmon.records import Evidence, Severity
from stabmon.rules import suggested_fixes
from stabmon.rules.baseline import Spike, disturbed, falls, log_spike, rise
from stabmon.rules.registry import Explanation, Observation, rule
from stabmon.rules.sentences import beside
from stabmon.rules.thresholds import GradientLimits
from stabmon.rules.view import Hit, Run

CAUSES = ("UPD001", "UPD002", "ATT001", "ATT003", "ATT008", "LOS004")


@rule(
    "GRD001", "gradient-spike", severity=Severity.WARNING, evidence=Evidence.LITERATURE, symptom_of=(*CAUSES, "GRD002")
)
def gradient_spike(run: Run, limits: GradientLimits) -> Iterator[Observation]:
    """Flag a gradient norm far above its recent past.

    What it checks: the logarithm of the total gradient norm against the median of the last ``limits.window`` samples
        plus ``limits.deviations_max`` robust standard deviations (1.4826 times the median absolute deviation, at least
        ``limits.spread_floor``), once there are ``limits.samples_min``. A spike is a warning when it lasts
        ``limits.confirmations`` samples or is one of more than ``limits.isolated_max`` in the window, and the loss, if
        it is logged, is above its own recent median; any other is information.
    Why it matters: spikes that last go before a divergence. Isolated ones do not: healthy speech runs with a fixed b
        = -log n have two to five of them with a smooth loss.
    Suggested fix: none for isolated spikes but clipping, where nothing clips (a learnable bias, if they disturb).
        For lasting ones pre-norm where the stream itself is normed, clipping, a lower learning rate or a longer
        warm-up; if logits grow as well, ATT003 names the cause.
    When the fix is wrong: where a bad batch made the spike: LOS004 says so where it can.
    References: OLMo-core (mean + 6σ of the last 128 steps; here with median and deviation from it, which a spike does
        not move, of the logarithm, because gradient norms vary by factors); ZClip, arXiv 2504.02507; isolated spikes
        with b = -log n as remembered from arXiv 2409.04431.
    """
    found = log_spike(run, "total_gradient_norm", limits, limits.spread_floor)
    if found is not None:
        grave = not found.isolated and disturbed(run)
        severity = Severity.WARNING if grave else Severity.INFO
        yield Observation(found.hit, partial(_explain, run, found), partial(_fixes, run, grave), severity=severity)


def _fixes(run: Run, grave: bool) -> tuple[Fix, ...]:
    if not grave:
        return suggested_fixes.if_unclipped(run)
    return suggested_fixes.calmer(run, "the gradient norm has stayed above its usual size")


def _explain(run: Run, found: Spike) -> Explanation:
    blocks = _worst_block(run)
    words = f"; most of it in {blocks[0].layer} ({number(blocks[0].value)})" if blocks else ""
    message = (
        f"total gradient norm {number(found.hit.value)}, limit {number(found.hit.limit)}: "
        f"{number(found.deviations)} robust standard deviations above the usual {number(found.usual)}{words}"
    )
    cause = "one step stands out, and the steps before it do not" if found.isolated else "the spike lasts or comes back"
    return Explanation(message, cause, run.cells(None, "total_gradient_norm", "loss") + blocks)


def _worst_block(run: Run) -> tuple[Cell, ...]:
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
    """Flag a gradient norm that has moved to another level and stays there.

    What it checks: the median total gradient norm of the last ``limits.lasting`` samples against ``limits.rise_max``
        times that of the ``limits.window`` samples before them, once there are ``limits.samples_min``; the median loss
        of the same samples, if it is logged, must not be below that of as many before them.
    Why it matters: with clipping every step is then a step of the same size in a direction that single tokens decide;
        without clipping the weights are thrown out. Language models with sigmoid attention and no bias show it.
    Suggested fix: clipping where there is none, a lower learning rate; where logits grew, QK norm (ATT003).
    When the fix is wrong: where the batch was made smaller or the loss changed its scale at that step. Gradients also
        rise as a model that stood still begins to learn, which is why a falling loss keeps it silent.
    References: arXiv 2409.04431 on lasting gradient norms of SinCos and RoPE without the bias; ZClip, arXiv 2504.02507.
    """
    found = rise(run, "total_gradient_norm", limits.lasting, limits.window, limits.samples_min, limits.rise_max)
    if found is not None and (found.excess <= 1 or not falls(run, limits.lasting)):
        fixes = partial(suggested_fixes.calmer, run, "the gradient norm has moved to another level")
        yield Observation(found, partial(_explain_rise, run, found), fixes)


def _explain_rise(run: Run, hit: Hit) -> Explanation:
    message = f"median gradient norm {number(hit.value)}, limit {number(hit.limit)}{beside(run, None, 'loss')}"
    newest = run.cells(None, "total_gradient_norm", "loss", "learning_rate")
    return Explanation(message, "something that the gradient depends on has changed and has not come back", newest)
