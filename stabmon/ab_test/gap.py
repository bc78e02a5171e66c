"""The gap between two trainings on the same batches, with an interval from one pair of them. No torch.

Losses of neighbouring steps move together, and what the data has in common goes out in the difference. The interval is
Student's t over means of ``BLOCKS`` equal blocks of the last ``WINDOW`` differences: it says whether sigmoid is behind
in these steps, not whether it would be with other weights, which takes several seeds (``stabmon.race``).
"""

import math
from collections.abc import Sequence
from statistics import fmean

from stabmon.ab_test.report import Interval

WINDOW = 16
"""Compared steps that an interval is made of."""
BLOCKS = 4
MARGIN = 0.05
"""Nats that the whole interval must be behind by: less, designs differ by that end alike."""
CONFIRMED = 3
"""Intervals in a row that must say so."""


def gap(differences: Sequence[float]) -> Interval | None:
    """Return the interval of the newest ``differences``, loss of sigmoid less that of softmax; None of too few."""
    if len(differences) < WINDOW:
        return None
    newest, size = differences[-WINDOW:], WINDOW // BLOCKS
    return Interval.of([fmean(newest[start : start + size]) for start in range(0, WINDOW, size)])


def behind_from(sigmoid: Sequence[float], softmax: Sequence[float]) -> int | None:
    """Return the first step at which ``CONFIRMED`` intervals in a row are behind by ``MARGIN``; None without."""
    differences = [ours - theirs for ours, theirs in zip(sigmoid, softmax, strict=False)]
    confirmed = 0
    for step in range(WINDOW, len(differences) + 1):
        found = gap(differences[:step])
        behind = found is not None and (found.low > MARGIN or math.isnan(found.mean))
        confirmed = confirmed + 1 if behind else 0
        if confirmed == CONFIRMED:
            return step - 1
    return None
