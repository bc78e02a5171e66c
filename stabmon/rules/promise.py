"""What the fixes of a finding are expected to do, from the numbers of the run at the step that asked for them."""

from collections.abc import Iterable

from stabmon.fixes.effect import with_effect
from stabmon.records import Fix
from stabmon.rules.view import Run

_OF_LAYER = (
    "row_mass",
    "bias",
    "best_bias",
    "logit_mean",
    "logit_std",
    "logit_max",
    "branch_ratio",
    "residual_in",
)
_OF_RUN = ("learning_rate", "total_gradient_norm")


def with_effects(fixes: Iterable[Fix], run: Run) -> tuple[Fix, ...]:
    """Return ``fixes``, each with the metric it moves, its newest value, and where it should go."""
    return tuple(_promised(fix, run) for fix in fixes)


def _promised(fix: Fix, run: Run) -> Fix:
    attention = next((one for one in run.info.model.attentions if one.module == fix.module), None)
    values = {metric: run.value(metric, None) for metric in _OF_RUN}
    if attention is not None:
        values |= {metric: run.value(metric, attention.layer) for metric in _OF_LAYER}
    return with_effect(fix, attention, {metric: value for metric, value in values.items() if value is not None})
