"""The expected effect of a fix as a number: the metric it changes, its present value and the expected one. No torch."""

import math
from collections.abc import Mapping

from stabmon.fixes import registry
from stabmon.fixes.change import Effect
from stabmon.fixes.record import Fix
from stabmon.records import Attention


def expected(fix: Fix, attention: Attention | None, measured: Mapping[str, float]) -> Effect | None:
    """Return the expected effect of ``fix`` on a layer (or run) with the values ``measured``, by metric.

    None where nothing that was measured gives one: no finite number of the metric that the fix changes.
    """
    known = {metric: value for metric, value in measured.items() if math.isfinite(value)}
    return registry.find(fix.kind).expected(fix, attention, known)


def with_effect(fix: Fix, attention: Attention | None, measured: Mapping[str, float]) -> Fix:
    """Return ``fix`` with its expected effect; one that has an effect already is returned as it is."""
    return fix if fix.effect is not None else fix.model_copy(update={"effect": expected(fix, attention, measured)})
