"""A check that an open run file is still the one that readers find: SQLite goes on writing into a deleted one."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

_HEADER = b"SQLite format 3\0"


class Happened(NamedTuple):
    """A change to a file outside SQLite: moved, replaced or deleted."""

    text: str
    kept: bool
    """True if what is written into it can still be found."""
    certain: bool = True
    """False: the log beside the file may bring back what is not kept."""


class WatchedFile:
    """A descriptor of ``file``, by which it is recognised; it is made where it is missing.

    ``close`` it after SQLite has closed the file: closing any descriptor of a file gives up a process's locks on it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file.absolute()
        self._descriptor: int | None = os.open(self.file, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def look(self) -> Happened | None:
        """Return what became of the file, or None while it is at its path and begins as a database does."""
        if self._descriptor is None:
            return None
        opened = os.fstat(self._descriptor)
        if not opened.st_nlink:
            other = " and another file is at its place" if self.file.exists() else ""
            return Happened(f"{self.file} was deleted while the run was written{other}", kept=False)
        if os.pread(self._descriptor, len(_HEADER), 0) != _HEADER:
            return Happened(f"{self.file} was overwritten while the run was written", kept=False, certain=False)
        try:
            here = os.path.samestat(opened, self.file.stat())
        except PermissionError:  # it cannot be seen any more, and is written all the same
            here = True
        except OSError:
            here = False
        return None if here else Happened(f"{self.file} was moved while the run was written{self._to()}", kept=True)

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _to(self) -> str:
        """Return where the file is now, where the system says it."""
        with contextlib.suppress(OSError):
            return f" to {os.readlink(f'/proc/self/fd/{self._descriptor}')}"
        return ""
