"""95 % intervals: Wilson's for a share, a bootstrap over configurations for anything else."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import numpy as np

from stabmon.records import Record

_Z = NormalDist().inv_cdf(0.975)
_DRAWS = 2000


class Figure(Record):
    """A number with its 95 % interval; None where there was nothing to count."""

    value: float | None
    low: float | None = None
    high: float | None = None
    count: int = 0
    """The unit that was counted: runs, or findings."""

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        ends = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.value:.2f}{ends}"


def share(hits: Mapping[str, Sequence[bool]]) -> Figure:
    """Return the share of True over the runs of each configuration, with Wilson's interval.

    The interval counts configurations, not runs: replicates of one configuration end alike, so that they are no
    further evidence.
    """
    values = [value for runs in hits.values() for value in runs]
    if not values:
        return Figure(value=None)
    rate, number = sum(values) / len(values), sum(1 for runs in hits.values() if runs)
    low, high = wilson(rate, number)
    return Figure(value=rate, low=low, high=high, count=len(values))


def wilson(rate: float, number: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share ``rate`` of ``number`` independent trials."""
    square = _Z * _Z / number
    middle = (rate + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(rate * (1 - rate) / number + square / (4 * number))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    values: Mapping[str, Sequence[float]], statistic: Callable[[Sequence[float]], float], seed: int = 0
) -> Figure:
    """Return ``statistic`` of all values, with the interval that drawing configurations again and again gives."""
    names = [name for name, runs in values.items() if runs]
    if not names:
        return Figure(value=None)
    everything = [value for name in names for value in values[name]]
    generator = np.random.default_rng(seed)
    drawn = [
        statistic(
            [value for index in generator.integers(len(names), size=len(names)) for value in values[names[index]]]
        )
        for _ in range(_DRAWS if len(names) > 1 else 0)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (None, None)
    return Figure(
        value=statistic(everything),
        low=None if low is None else float(low),
        high=None if high is None else float(high),
        count=len(everything),
    )
