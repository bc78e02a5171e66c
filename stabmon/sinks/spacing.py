"""The samples of a run that are written: all at first, then ever fewer, so that a file grows as the run's logarithm."""

import math


class Spacing:
    """Samples after which something is written again.

    least: samples between two times at first.
    part: one time in every ``part``-th of the run so far, once that is more than ``least`` samples.
    """

    def __init__(self, least: int, part: int) -> None:
        self._least, self._part = least, part
        self._next = least

    def due(self, samples: int) -> bool:
        """Return whether it is time, after this many samples of the run."""
        return samples >= self._next

    def written(self, samples: int) -> None:
        """Note that it was written after this many samples."""
        self._next = samples + max(self._least, -(-samples // self._part))


class Apart:
    """Points at least ``seconds`` apart by the clock of the samples; one that was set back holds none of them up."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -math.inf

    def due(self, time: float) -> bool:
        """Return whether it is time, at ``time`` (seconds)."""
        return time >= self._last + self._seconds or time < self._last

    def written(self, time: float) -> None:
        """Note that a point was written."""
        self._last = time


def counts(times: int) -> bool:
    """Return whether this repetition of an event is written: the 1st, 2nd, 4th, 8th and so on."""
    return times > 0 and times & (times - 1) == 0
