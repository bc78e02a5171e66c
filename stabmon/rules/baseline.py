"""What is usual for a series of one number a step, so that a spike can be told from its noise."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.rules.thresholds import SpikeLimits
from stabmon.rules.view import HOLD, Hit, Run

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


class Spike(NamedTuple):
    """A value that is above what is usual."""

    hit: Hit
    usual: float
    """Median of the window."""
    spread: float
    """Robust standard deviation of the window, or its floor."""
    isolated: bool
    """It has not lasted, and there were few others in the window."""

    @property
    def deviations(self) -> float:
        """Distance from the median in robust standard deviations."""
        return (self.hit.value - self.usual) / self.spread


def spike(run: Run, metric: str, limits: SpikeLimits, spread_floor: float) -> Spike | None:
    """Return the spike that the newest value of the run-level ``metric`` is, or None.

    spread_floor: smallest robust standard deviation, as a share of the median.
    """
    series = run.series(metric)
    if not series.spots or not series.now[0] > 0:
        return None
    now, past = float(series.now[0]), series.past(limits.window)[:, 0]
    usable = past[np.isfinite(past)].astype(np.float64)
    # Cheap first: where most of the window is above this, so is its median, and the newest value is no spike.
    nearest = now / (1 + HOLD * limits.deviations_max * spread_floor)
    if len(usable) < limits.samples_min or 2 * np.count_nonzero(usable >= nearest) > len(usable):
        return None
    usual = median(usable)
    spread = max(NORMAL * median(np.abs(usable - usual)), spread_floor * abs(usual))
    distance = limits.deviations_max * spread
    if distance <= 0:
        return None
    # In deviations, not in the value: 0.8 of a loss's limit is below its usual value, and no spike would ever be over.
    hits = series.over(np.array([(now - usual) / distance]), usual + distance)
    return Spike(hits[0], usual, spread, _is_isolated(usable, usual + distance, limits)) if hits else None


def _is_isolated(past: npt.NDArray[np.float64], limit: float, limits: SpikeLimits) -> bool:
    over = past > limit
    before = limits.confirmations - 1
    lasted = before > 0 and bool(over[-before:].all())
    # Rises count: a series that began above the limit and fell, as gradients do in the first steps, did not spike.
    rises = int((over[1:] & ~over[:-1]).sum())
    return not lasted and rises < limits.isolated_max


def median(values: npt.NDArray[np.float64]) -> float:
    """Return the median of at least one number; np.median takes ten times as long for a window of 128."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return float(ordered[middle]) if len(ordered) % 2 else float(ordered[middle - 1] + ordered[middle]) / 2
