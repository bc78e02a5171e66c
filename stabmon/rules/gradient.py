"""Rules about gradients, GRD."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from stabmon.records import Cell, Evidence, Fix, Severity
from stabmon.rules import remedies
from stabmon.rules.baseline import Spike, spike
from stabmon.rules.registry import Sighting, Told, rule
from stabmon.rules.thresholds import GradientLimits
from stabmon.rules.view import Run
from stabmon.rules.words import number


@rule("GRD001", "gradient-spike", severity=Severity.WARNING, evidence=Evidence.LITERATURE)
def gradient_spike(run: Run, limits: GradientLimits) -> Iterator[Sighting]:
    """Flag a gradient norm far above its recent past.

    What it checks: the total gradient norm against the median of the last ``limits.window`` samples plus
        ``limits.deviations_max`` robust standard deviations (1.4826 times the median absolute deviation, at least
        ``limits.spread_floor`` of the median), once there are ``limits.samples_min``. A spike is a warning when it
        lasts ``limits.confirmations`` samples or is one of more than ``limits.isolated_max`` in the window; an
        isolated one is information.
    Why it matters: spikes that last go before a divergence. Isolated ones do not: healthy speech runs with a fixed b
        = -log n have two to five of them with a smooth loss.
    Suggested fix: none for isolated spikes (a learnable bias, if they disturb). For lasting ones a lower learning
        rate or a longer warm-up; if logits grow as well, ATT003 names the cause.
    When the fix is wrong: where a bad batch made the spike: look at the data of that step.
    References: OLMo-core (mean + 6σ of the last 128 steps; here with median and deviation from it, which a spike does
        not move); ZClip, arXiv 2504.02507; isolated spikes with b = -log n as remembered from arXiv 2409.04431.
    """
    found = spike(run, "total_gradient_norm", limits, limits.spread_floor)
    if found is not None:
        severity = Severity.INFO if found.isolated else Severity.WARNING
        yield Sighting(found.hit, partial(_tell, run, found), partial(_fixes, found), severity=severity)


def _fixes(found: Spike) -> tuple[Fix, ...]:
    return () if found.isolated else remedies.slower("the gradient norm has stayed above its usual size")


def _tell(run: Run, found: Spike) -> Told:
    blocks = _worst_block(run, found)
    words = f"; most of it in {blocks[0].layer} ({number(blocks[0].value)})" if blocks else ""
    message = (
        f"total gradient norm {number(found.hit.value)}, limit {number(found.hit.limit)}: "
        f"{number(found.deviations)} robust standard deviations above the usual {number(found.usual)}{words}"
    )
    cause = "one step stands out, and the steps before it do not" if found.isolated else "the spike lasts or comes back"
    return Told(message, cause, run.cells(None, "total_gradient_norm", "loss") + blocks)


def _worst_block(run: Run, found: Spike) -> tuple[Cell, ...]:
    series = run.series("gradient_norm")
    now = np.where(np.isfinite(series.now), series.now, -np.inf)
    return (series.cell(int(np.argmax(now))),) if np.isfinite(now).any() else ()
