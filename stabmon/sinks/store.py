"""The store as a sink: what the disk refuses is kept in memory and written when it is possible again."""

import time as clock
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from stabmon.errors import StoreError
from stabmon.findings import Finding, Key
from stabmon.records import Failure, Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout, Logged
from stabmon.store import RunWriter
from stabmon.store.owner import Owner
from stabmon.store.reason import LOCKED

KEPT = 10_000
"""Rows that are kept in memory while the store refuses them."""

PAUSE = 10.0
"""A failed attempt is repeated after this many times its own duration, so that a locked file costs little."""
CLOSING = 45.0
"""Seconds that closing may take: most of them for another process that has locked the file."""
_RETRY = 0.2
"""Seconds between attempts while the run is closed."""
_ATTEMPTS = 5
"""Attempts while the run is closed, where the file is not locked: a disk that is full stays so."""


class StoreSink:
    """Writes a run into ``folder``/run.sqlite; with ``resume`` goes on with the run that is there.

    owner: of ``stabmon.store.reserve``, where the folder was reserved before.
    closing: seconds that ``close`` may take, mostly for another process that has locked the file.
    """

    name = "store"

    def __init__(
        self,
        folder: Path,
        *,
        resume: bool = False,
        owner: Owner | None = None,
        kept: int = KEPT,
        pause: float = PAUSE,
        closing: float = CLOSING,
    ) -> None:
        self.folder = Path(folder)
        self.closing = closing
        self.lost = 0
        """Rows that are not in the run's file: more than ``kept`` waited, or the file is gone."""
        self._resume, self._owner = resume, owner
        self._pause = pause
        self._rows: deque[tuple[int, float, Floats, tuple[Logged, ...]]] = deque(maxlen=kept)
        """Each with what was logged before it."""
        self._logged: deque[Logged] = deque(maxlen=10 * kept)
        self._findings: dict[Key, Finding] = {}
        self._failures: Sequence[Failure] = ()
        self._writer: RunWriter | None = None
        self._written = 0
        self._gone: str | None = None
        self._loss = "are lost"
        self._moved: str | None = None
        self._dropped = 0
        self._not_before = 0.0

    @property
    def advice(self) -> str:
        """The effect of a failure: the number of rows that wait in memory, or that they are lost."""
        if self._gone:
            return f"the {self.lost:,} samples that were written {self._loss} with it; later ones are lost"
        if self._moved:
            return "it is written where it is now"
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
        self._writer = RunWriter.create(self.folder, info, layout, resume=self._resume, owner=self._owner)

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Write this row, after those that wait."""
        if self._gone:
            self.lost += 1
            return
        self.lost += len(self._rows) == self._rows.maxlen
        self._rows.append((step, time, values, tuple(self._logged)))
        self._logged.clear()
        self._write()

    def logged(self, values: Sequence[Logged]) -> None:
        """Keep these numbers for the next row, with which they are written."""
        self._logged.extend(values)

    def findings(self, changed: Sequence[Finding]) -> None:
        """Write these findings, after the rows that wait."""
        self._findings.update({finding.key: finding for finding in changed})
        self._write()

    def failures(self, every: Sequence[Failure]) -> None:
        """Write what is missing and why, after the rows that wait."""
        self._failures = every
        self._write()

    def heartbeat(self, beat: Heartbeat) -> None:
        """Write what waits, then the state of the run; look whether the file is still the one that readers find.

        Raises:
            StoreError: it is not.
        """
        self._dropped = beat.dropped
        happened = self._look()
        self._write(rest=True)
        if not self._rows and self._writer and not self._gone:
            self._writer.heartbeat(beat.model_copy(update={"dropped": beat.dropped + self.lost}))
        if happened:
            raise StoreError(happened)

    def discard(self) -> None:
        """Remove a run that has not begun; one that goes on stays, as failed."""
        writer, self._writer = self._writer, None
        if writer is not None and self._resume:
            writer.close(RunState.FAILED)
        elif writer is not None:
            writer.discard()

    def close(self, state: RunState) -> None:
        """Write what waits, then the final state; a file that another process has locked is waited for.

        Raises:
            StoreError: samples are lost; the message says how many of how many.
        """
        if self._writer is None:
            return
        trouble = self._gone or self._last_writes(clock.monotonic() + 0.9 * self.closing)
        self.lost += len(self._rows)
        self._rows.clear()
        writer, self._writer = self._writer, None
        try:
            writer.close(state, self._dropped + self.lost)
        except StoreError as error:
            trouble = trouble or str(error)
        if trouble is not None or self.lost:
            given = self._written + self.lost
            raise StoreError(
                f"{trouble or 'too many waited'}; {self.lost:,} of {given:,} samples of the run {self._loss}"
            )

    def _last_writes(self, deadline: float) -> str | None:
        """Write what waits until ``deadline``; return what was in the way, or None when all is written."""
        attempts = 0
        while True:
            attempts += 1
            self._not_before = 0.0
            try:
                self._look()
                self._write(rest=True)
            except StoreError as error:
                if clock.monotonic() > deadline or (attempts >= _ATTEMPTS and LOCKED not in str(error)):
                    return str(error)
                clock.sleep(_RETRY)
            else:
                return self._gone

    def _look(self) -> str | None:
        """Return what became of the file, where it is not the one that readers find.

        A file that was moved is written where it is now, and nothing is lost.
        """
        happened = None if self._writer is None or self._gone else self._writer.what_happened()
        if happened is None:
            return None
        if not happened.kept:
            self._gone, self._loss = happened.text, "are lost" if happened.certain else "may be lost"
            self.lost += self._written + len(self._rows)
            self._written = 0
            self._rows.clear()
            self._logged.clear()
            self._findings.clear()
        self._moved = happened.text if happened.kept else None
        return happened.text

    def _write(self, *, rest: bool = False) -> None:
        """Write all that waits, oldest first; nothing leaves the memory before it is written.

        rest: what was logged since the last row too.
        """
        started = clock.monotonic()
        if self._writer is None or self._gone or started < self._not_before:
            return
        try:
            while self._rows:
                self._writer.sample(*self._rows[0])
                self._rows.popleft()
                self._written += 1
            if rest and self._logged:
                self._writer.logged(tuple(self._logged))
                self._logged.clear()
            if self._findings:
                self._writer.findings(list(self._findings.values()))
                self._findings.clear()
            if self._failures:
                self._writer.failures(self._failures)
                self._failures = ()
        except StoreError:
            self._not_before = clock.monotonic() + self._pause * (clock.monotonic() - started)
            raise
