"""The spool: where a run that is kept on a server alone waits for it, in a folder of this user."""

import os
from collections.abc import Callable
from pathlib import Path

from stabmon.errors import StoreError
from stabmon.records import RunInfo
from stabmon.series import Floats, Layout
from stabmon.sinks.store import StoreSink
from stabmon.store.owner import Owner

MOST = 1 << 30
"""Most bytes of rows that wait for the server; later samples are dropped, and counted."""


def spool_folder() -> Path:
    """Return the folder: below ``XDG_STATE_HOME``, or ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "stabmon" / "spool"


class SpoolSink(StoreSink):
    """A store that takes no more while too much of it waits for the server.

    sent: returns how many samples the server has.
    """

    def __init__(self, folder: Path, sent: Callable[[], int], *, owner: Owner | None = None, most: int = MOST) -> None:
        super().__init__(folder, owner=owner)
        self._sent, self._most = sent, most
        self._taken = self._row_bytes = 0

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Create the run's file."""
        self._row_bytes = 4 * layout.width
        super().start(info, layout)

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Write this row, unless too many wait.

        Raises:
            StoreError: they do; this one is dropped.
        """
        if (self._taken - self._sent()) * self._row_bytes > self._most:
            self.lost += 1
            raise StoreError(f"the spool {self.folder} holds {self._most:,} bytes that the server has not taken")
        self._taken += 1
        super().sample(step, time, values)

    @property
    def advice(self) -> str:
        """The effect of a failure."""
        return f"{self.lost:,} samples are dropped so far; {super().advice}"
