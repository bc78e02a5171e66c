"""The pulse of a run: whether its training goes on, and the heartbeat that says so."""

import time as clock

from stabmon.records import Heartbeat, RunState

PAUSE = 600.0
"""Seconds without the end of a step after which the heartbeat's time is kept: the run is then called stale."""


class Pulse:
    """Knows when the training last ended a step.

    step: the latest sampled step, -1 before the first.
    """

    def __init__(self) -> None:
        self.step = -1
        self._moved = clock.monotonic()

    def moved(self) -> None:
        """Note that a step has ended, sampled or not."""
        self._moved = clock.monotonic()

    def beat(self, samples: int, dropped: int, overhead: float | None) -> Heartbeat:
        """Return the state of the run now."""
        still = max(clock.monotonic() - self._moved - PAUSE, 0.0)
        return Heartbeat(
            state=RunState.RUNNING,
            step=self.step,
            time=clock.time() - still,
            samples=samples,
            dropped=dropped,
            overhead=overhead,
        )
