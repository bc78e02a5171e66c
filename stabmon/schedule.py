"""Sampling schedule: every step at first, where a wrong bias shows, then one step in a few."""

from pydantic import NonNegativeInt, PositiveInt

from stabmon.records import Record

_GOLDEN = 0.6180339887498949
"""Fractional part of the golden ratio: its multiples fill [0, 1) as evenly as any sequence can."""


class Schedule(Record):
    """The steps that are recorded, and the query rows that are read in each."""

    dense: NonNegativeInt = 200
    """First steps, all of which are recorded."""
    every: PositiveInt = 10
    """Distance in steps between recorded steps after that."""
    rows: PositiveInt = 16
    """Query rows whose logits are read, per head and call, shared out over the batch; at least one a sequence."""

    def sampled(self, step: int) -> bool:
        """Return whether ``step`` (from 0) is recorded."""
        return step < self.dense or step % self.every == 0

    def offset(self, step: int) -> float:
        """Return the offset in [0, 1) within its stratum where each row of ``step`` is read; nothing is random."""
        return (0.5 + step * _GOLDEN) % 1.0
