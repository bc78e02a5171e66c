"""The store as a sink: what the disk refuses is kept in memory and written when it is possible again."""

import contextlib
import time as clock
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from stabmon.errors import StoreError
from stabmon.findings import Finding, Key
from stabmon.records import Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout
from stabmon.store import RunWriter

KEPT = 10_000
"""Rows that are kept in memory while the store refuses them."""

PAUSE = 10.0
"""A failed attempt is repeated after this many times its own duration, so that a locked file costs little."""


class StoreSink:
    """Writes a run into ``folder``/run.sqlite; with ``resume`` goes on with the run that is there."""

    name = "store"

    def __init__(self, folder: Path, *, resume: bool = False, kept: int = KEPT, pause: float = PAUSE) -> None:
        self.folder = Path(folder)
        self.lost = 0
        """Rows that were given up because more than ``kept`` were waiting."""
        self._resume = resume
        self._pause = pause
        self._rows: deque[tuple[int, float, Floats]] = deque(maxlen=kept)
        self._findings: dict[Key, Finding] = {}
        self._writer: RunWriter | None = None
        self._not_before = 0.0

    @property
    def advice(self) -> str:
        """What a failure means: how many rows wait in memory."""
        lost = f"; {self.lost} older ones are lost" if self.lost else ""
        return (
            f"{len(self._rows)} samples wait in memory (at most {self._rows.maxlen}) and are written when that is "
            f"possible again, at the latest when the run is closed{lost}"
        )

    @property
    def waiting(self) -> int:
        """Rows that are kept in memory."""
        return len(self._rows)

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Create or reopen the run's file; see ``RunWriter.create`` for what it refuses."""
        self._writer = RunWriter.create(self.folder, info, layout, resume=self._resume)

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Write this row, after those that wait."""
        self.lost += len(self._rows) == self._rows.maxlen
        self._rows.append((step, time, values))
        self._write()

    def findings(self, changed: Sequence[Finding]) -> None:
        """Write these findings, after the rows that wait."""
        self._findings.update({finding.key: finding for finding in changed})
        self._write()

    def heartbeat(self, beat: Heartbeat) -> None:
        """Write what waits, then how the run stands."""
        self._write()
        if not self._rows and self._writer:
            self._writer.heartbeat(beat.model_copy(update={"dropped": beat.dropped + self.lost}))

    def close(self, state: RunState) -> None:
        """Write what waits, then the final state.

        Raises:
            StoreError: it cannot be written; the message says how many samples are lost.
        """
        if self._writer is None:
            return
        self._not_before = 0.0
        try:
            self._write()
        except StoreError as error:
            with contextlib.suppress(StoreError):  # what is lost matters more than a state that cannot be written
                self._writer.close(state)
            raise StoreError(f"{error}; the last {len(self._rows)} samples of the run are lost") from error
        else:
            self._writer.close(state)
        finally:
            self._writer = None

    def _write(self) -> None:
        """Write all that waits, oldest first; nothing leaves the memory before it is written."""
        started = clock.monotonic()
        if self._writer is None or started < self._not_before:
            return
        try:
            while self._rows:
                self._writer.sample(*self._rows[0])
                self._rows.popleft()
            if self._findings:
                self._writer.findings(list(self._findings.values()))
                self._findings.clear()
        except StoreError:
            self._not_before = clock.monotonic() + self._pause * (clock.monotonic() - started)
            raise
