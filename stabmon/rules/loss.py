"""Rules about the loss, LOS."""

from collections.abc import Iterator
from functools import partial

from stabmon.records import Evidence, Fix, Severity
from stabmon.rules import remedies
from stabmon.rules.baseline import Spike, spike
from stabmon.rules.registry import Sighting, Told, rule
from stabmon.rules.thresholds import LossLimits
from stabmon.rules.view import Run
from stabmon.rules.words import beside, number


@rule("LOS001", "loss-spike", severity=Severity.WARNING, evidence=Evidence.LITERATURE)
def loss_spike(run: Run, limits: LossLimits) -> Iterator[Sighting]:
    """Flag a loss far above its recent past.

    What it checks: the loss against the median of the last ``limits.window`` samples plus ``limits.deviations_max``
        robust standard deviations (1.4826 times the median absolute deviation, at least ``limits.spread_floor`` of
        the median), once there are ``limits.samples_min``. A spike is a warning when it lasts
        ``limits.confirmations`` samples or is one of more than ``limits.isolated_max`` in the window; an isolated one
        is information.
    Why it matters: a loss that does not come back within a few steps has diverged, and what it costs grows with every
        step.
    Suggested fix: go back to a checkpoint before it, with a lower learning rate or a longer warm-up. If a finding
        about attention opened earlier, its fix comes first: the loss shows an attention gone wrong late or never.
    When the fix is wrong: for a single bad batch, or a data set whose loss is heavy-tailed (small batches,
        reinforcement learning): raise the number of deviations.
    References: OLMo-core (mean + 6σ of the last 128 steps; here with median and deviation from it, which a spike does
        not move); arXiv 2304.13013 (loss spikes follow Adam's second moment by 1 to 8 steps).
    """
    found = spike(run, "loss", limits, limits.spread_floor)
    if found is not None:
        severity = Severity.INFO if found.isolated else Severity.WARNING
        yield Sighting(found.hit, partial(_tell, run, found), partial(_fixes, found), severity=severity)


def _fixes(found: Spike) -> tuple[Fix, ...]:
    return () if found.isolated else remedies.slower("the loss has stayed above its recent past")


def _tell(run: Run, found: Spike) -> Told:
    message = (
        f"loss {number(found.hit.value)}, limit {number(found.hit.limit)}: "
        f"{number(found.deviations)} robust standard deviations above the usual {number(found.usual)}"
        f"{beside(run, None, 'total_gradient_norm', 'learning_rate')}"
    )
    cause = "one step stands out, and the steps before it do not" if found.isolated else "the loss does not come back"
    return Told(message, cause, run.cells(None, "loss", "total_gradient_norm", "learning_rate"))
