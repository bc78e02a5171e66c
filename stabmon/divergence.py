"""Divergence of a training, by its losses: the one definition."""

from collections.abc import Sequence
from statistics import fmean

START = 3
"""Steps whose mean loss is the start of a training, unless the very first loss is lower: it may jump at step 1."""


def diverged(losses: Sequence[float], final: float) -> bool:
    """Return whether a training ended worse than it began: ``final`` is not finite, or above the loss at the start.

    losses: the loss of each step; ``final``: the mean of the last of them.
    """
    return not final <= min(fmean(losses[:START]), losses[0])
