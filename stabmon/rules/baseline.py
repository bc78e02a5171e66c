"""Robust baselines of a series of one number a step, to separate a spike from noise."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.rules.families import GradientLimits, LossLimits, SpikeLimits
from stabmon.rules.view import HOLD, Hit, Run

NORMAL = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


class Spike(NamedTuple):
    """A value that is above what is usual."""

    hit: Hit
    usual: float
    """Median of the window."""
    spread: float
    """Robust standard deviation of the window (``log_spike``: of its logarithms), or its floor."""
    deviations: float
    """Distance from the median in robust standard deviations."""
    isolated: bool
    """It has not lasted, and there were few others in the window."""


def spike(
    run: Run, metric: str, limits: SpikeLimits, spread_floor: float, least: Callable[[float], float] = lambda usual: 0.0
) -> Spike | None:
    """Return the spike that the newest value of the run-level ``metric`` is, or None.

    spread_floor: smallest robust standard deviation, as a share of the median where that is positive.
    least: from the median, the smallest distance from it that counts.
    """
    found = _window(run, metric, limits, 1 + HOLD * limits.deviations_max * spread_floor)
    if found is None:
        return None
    now, usable = found
    usual = median(usable)
    spread = max(NORMAL * median(np.abs(usable - usual)), spread_floor * usual)
    distance = max(limits.deviations_max * spread, least(usual))
    if distance <= 0 or spread <= 0:
        return None
    # In deviations, not in the value: 0.8 of a loss's limit is below its usual value, and no spike would ever be over.
    hits = run.series(metric).over(np.array([(now - usual) / distance]), usual + distance)
    if not hits:
        return None
    return Spike(hits[0], usual, spread, (now - usual) / spread, _is_isolated(usable, usual + distance, limits))


def log_spike(run: Run, metric: str, limits: SpikeLimits, spread_floor: float, least: float = 0.0) -> Spike | None:
    """Return what ``spike`` does of the logarithm, for a series that varies by factors.

    spread_floor: smallest robust standard deviation of the logarithm.
    least: smallest value that counts, however small the usual ones are.
    """
    found = _window(run, metric, limits, math.exp(HOLD * limits.deviations_max * spread_floor))
    if found is None or not (found[0] > 0 and (found[1] > 0).any()):
        return None
    now, usable = found[0], found[1][found[1] > 0]
    logs = np.log(usable)
    usual = median(logs)
    spread = max(NORMAL * median(np.abs(logs - usual)), spread_floor)
    away = (math.log(now) if math.isfinite(now) else math.inf) - usual
    distance = max(limits.deviations_max * spread, (math.log(least) if least > 0 else -math.inf) - usual)
    limit = math.exp(min(usual + distance, 700.0))
    hits = run.series(metric).over(np.array([away / distance]), limit)
    if not hits:
        return None
    return Spike(hits[0], math.exp(usual), spread, away / spread, _is_isolated(usable, limit, limits))


def loss_spike(run: Run, limits: LossLimits) -> Spike | None:
    """Return the spike that the newest loss is, or None; a rise that is small beside the run's start is none."""
    series = run.series("loss")
    if not series.spots:
        return None
    start = float(np.nan_to_num(series.start[0]))

    def least(usual: float) -> float:
        return max(limits.rise_min, limits.rise_of_start_min * max(start, start - usual))

    return spike(run, "loss", limits, limits.spread_floor, least)


def gradient_spike(run: Run, limits: SpikeLimits, floors: GradientLimits) -> Spike | None:
    """Return the spike that the newest total gradient norm is, or None; ``floors`` say what is too small to be one."""
    series = run.series("total_gradient_norm")
    if not series.spots:
        return None
    under_epsilon = floors.element_min * math.sqrt(max(run.info.model.parameters, 0))
    least = max(under_epsilon, floors.norm_of_start_min * float(np.nan_to_num(series.start[0])))
    return log_spike(run, "total_gradient_norm", limits, floors.spread_floor, least)


def rise(run: Run, metric: str, lasting: int, window: int, samples_min: int, factor: float) -> Hit | None:
    """Return where the median of the last ``lasting`` samples is ``factor`` times that of the ``window`` before them.

    The hit's value is the median now, its limit ``factor`` times the median before.
    """
    series = run.series(metric)
    if not series.spots or not np.isfinite(series.now[0]):
        return None
    past = series.past(lasting - 1 + window)[:, 0]
    before = _finite(past[: len(past) - lasting + 1])
    recent = _finite(np.append(past[len(past) - lasting + 1 :], series.now))
    if len(before) < samples_min or len(recent) < lasting // 2:
        return None
    now = median(recent)
    # Cheap first: as many values of the past as that above this, and so is their median.
    if 2 * np.count_nonzero(before >= now / (HOLD * factor)) > len(before):
        return None
    limit = factor * median(before)
    excess = now / limit if limit > 0 else 0.0
    return Hit(metric, None, None, now, limit, excess, 1, 1) if excess > HOLD else None


def disturbed(run: Run) -> bool:
    """Return whether the loss, by the median of three samples, is above its last 32; True where it is not logged."""
    series = run.series("loss")
    past = series.past(34)[:, 0] if series.spots else np.empty(0)
    usable = _finite(past)
    if len(usable) < 8:
        return True
    return median(np.append(usable[-2:], series.now[0] if np.isfinite(series.now[0]) else np.inf)) > median(usable[:-2])


def falls(run: Run, lasting: int) -> bool:
    """Return whether the median loss of the last ``lasting`` samples is below that of as many before; False without."""
    series = run.series("loss")
    losses = np.append(series.past(2 * lasting - 1)[:, 0], series.now) if series.spots else np.empty(0)
    before, recent = _finite(losses[:-lasting]), _finite(losses[-lasting:])
    return bool(len(before) and len(recent) and median(recent) < median(before))


def has_learnt(run: Run, share: float) -> bool:
    """Return whether the loss, by the median of its last 8 samples, has fallen under ``share`` of the run's start.

    False where it was not positive at the start: such a loss has no zero to fall to.
    """
    series = run.series("loss")
    if not series.spots or not series.start[0] > 0:
        return False
    usable = _finite(np.append(series.past(7)[:, 0], series.now))
    return bool(len(usable) and median(usable) < share * float(series.start[0]))


def _window(run: Run, metric: str, limits: SpikeLimits, least: float) -> tuple[float, npt.NDArray[np.float64]] | None:
    """Return the newest value and the finite ones of the window; None where it is not ``least`` times their median.

    A value below zero is compared with the median itself.
    """
    series = run.series(metric)
    if not series.spots or np.isnan(series.now[0]):
        return None
    now, past = float(series.now[0]), series.past(limits.window)[:, 0]
    usable = _finite(past)
    # Cheap first: where most of the window is above this, so is its median.
    if len(usable) < limits.samples_min or 2 * np.count_nonzero(usable >= min(now, now / least)) > len(usable):
        return None
    return now, usable


def _finite(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = values[np.isfinite(values)].astype(np.float64)
    return found


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
