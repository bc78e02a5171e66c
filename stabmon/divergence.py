"""Divergence of a training, by its losses: the one definition."""

from collections.abc import Sequence
from statistics import fmean

START = 3
"""Steps whose mean loss is the start of a training, unless the very first loss is lower: it may jump at step 1."""

MARGIN = 1.1
"""Factor on the loss at the start: a short training ends near it without having diverged."""


def diverged(losses: Sequence[float], final: float) -> bool:
    """Return whether a training ended worse than it began: ``final`` is not finite, or clearly above the first loss.

    losses: the loss of each step; ``final``: the mean of the last of them.
    """
    start = min(fmean(losses[:START]), losses[0])
    return not final <= start + (MARGIN - 1) * abs(start)
