"""Baselines that a user has today: detectors that turn loss and gradient norms into a score a step.

A step is an alarm where its score is above the detector's threshold; a loss that is not finite always is one. The
published threshold is the default, and any other gives the detector another place on its curve of recall and precision.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]


class Baseline(NamedTuple):
    """A detector: ``score`` maps losses [steps] and total gradient norms [steps] to scores [steps]."""

    name: str
    threshold: float
    score: Callable[[Values, Values], Values]
    source: str

    def scores(self, losses: Values, gradients: Values) -> Values:
        """Return the score of each step; +inf from the first loss on that is not finite."""
        with np.errstate(all="ignore"):
            found = self.score(losses, gradients)
        found = np.where(np.isfinite(found), found, -np.inf)
        return np.where(np.isfinite(losses), found, np.inf)


def deviations(values: Values, window: int = 128) -> Values:
    """Return how many standard deviations each value is above the mean of the ``window`` before it.

    No events until half a window has passed, as in OLMo-core's SkipStepOptimizer.
    """
    found = np.full(len(values), -np.inf)
    for step in range(max(20, window // 2), len(values)):
        past = _finite(values[max(0, step - window) : step])
        if len(past) > 1:
            found[step] = (values[step] - past.mean()) / max(past.std(ddof=1), 1e-12)
    return found


def zclip(values: Values, alpha: float = 0.97, warmup: int = 25) -> Values:
    """Return ZClip's z of each value: against an exponential mean and variance that a clipped value updates."""
    found = np.full(len(values), -np.inf)
    start = _finite(values[:warmup])
    if len(values) <= warmup or not len(start):
        return found
    mean, variance = float(start.mean()), float(start.var())
    for step in range(warmup, len(values)):
        deviation = variance**0.5
        found[step] = (values[step] - mean) / (deviation + 1e-6)
        if not np.isfinite(values[step]):
            continue
        taken = values[step]
        if found[step] > 2.5:
            taken = mean + 2.5 * deviation / (found[step] / 2.5)
        mean = alpha * mean + (1 - alpha) * taken
        variance = alpha * variance + (1 - alpha) * (taken - mean) ** 2
    return found


def over_running_mean(values: Values, window: int = 10) -> Values:
    """Return value over the mean of the ``window`` before it, where the value is above the last one."""
    found = np.full(len(values), -np.inf)
    for step in range(1, len(values)):
        if values[step] > values[step - 1]:
            found[step] = values[step] / max(_finite(values[max(0, step - window) : step]).mean(), 1e-12)
    return found


def cusum(values: Values, window: int = 32, slack: float = 0.5) -> Values:
    """Return the sum, never below zero, of deviations above the mean of the ``window`` before, less ``slack`` each."""
    found, total = np.full(len(values), -np.inf), 0.0
    for step in range(window, len(values)):
        past = _finite(values[step - window : step])
        if len(past) > 1 and np.isfinite(values[step]):
            deviation = (values[step] - past.mean()) / max(past.std(ddof=1), 1e-12)
            total = max(0.0, total + deviation - slack)
            found[step] = total
    return found


def _finite(values: Values) -> Values:
    return values[np.isfinite(values)]


BASELINES = (
    Baseline(
        "OLMo mean + 6σ of 128, loss and gradient",
        6.0,
        lambda losses, gradients: np.fmax(deviations(losses), deviations(gradients)),
        "OLMo-core, SkipStepOptimizer",
    ),
    Baseline("ZClip z > 2.5, gradient", 2.5, lambda _, gradients: zclip(gradients), "arXiv 2504.02507"),
    Baseline(
        "twice the rolling mean, loss",
        2.0,
        lambda losses, _: over_running_mean(losses),
        "Lightning's SpikeDetection, window 10",
    ),
    Baseline("CUSUM h = 5, loss", 5.0, lambda losses, _: cusum(losses), "Page 1954, slack 0.5, window 32"),
)
