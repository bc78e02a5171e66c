"""A run in a file of its own: as a reader and as its writer open it."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from stabmon.series import Layout
from stabmon.store import integrity
from stabmon.store.connect import OPENING, disconnect, for_reading, for_writing, in_our_words
from stabmon.store.one_run import OneRun
from stabmon.store.owner import Owner, holder
from stabmon.store.place import RunGone
from stabmon.store.watched_file import Happened, WatchedFile

_MOST_CHECKED = 1000
_checked: dict[Path, tuple[tuple[int, int, int], int]] = {}
"""Files that this process has checked: their identity, and the sequence before which no fold is checked again."""


class ReadFile:
    """A run file, read-only."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._connection = for_reading(file)
        try:
            with in_our_words(file, OPENING):
                self._identity = file.stat().st_ino
        except BaseException:
            disconnect(self._connection)
            raise

    @contextmanager
    def snapshot(self, doing: str) -> Iterator[OneRun]:
        """Yield the run in a transaction."""
        with self._lock, in_our_words(self.file, doing):
            if self.file.stat().st_ino != self._identity:
                raise RunGone(f"{self.file} was replaced by another file while {doing}: open it again")
            with self._connection.begin():
                yield OneRun(self._connection)

    def check(self, run: OneRun) -> None:
        """Refuse lines that belong to no run, and texts that are too long."""
        integrity.check_lines(run.connection, self.file)

    def check_contents(self, run: OneRun, layout: Layout) -> None:
        """Check what has come since this process last checked the same file; folds are never written again."""
        integrity.check_layout(layout, self.file)
        now = self.file.stat()
        version = (now.st_ino, now.st_mtime_ns, now.st_size)
        before, folded = _checked.get(self.file, (None, 0))
        folded = integrity.check_samples(run.connection, self.file, layout, folded if version == before else 0)
        if len(_checked) >= _MOST_CHECKED:
            _checked.clear()
        _checked[self.file] = (version, folded)

    def holder(self) -> str | None:
        """Return who holds the lock beside the file."""
        return holder(self.file.parent)

    def bytes(self) -> int:
        """Return the size of the file and its log."""
        files = [self.file, self.file.with_name(f"{self.file.name}-wal")]
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            disconnect(self._connection)


class WrittenFile:
    """A run file, open for its writer.

    owner: holds the folder for a training on this machine; None for a run that a server receives, whose writer is
        elsewhere: then each transaction finds out whether another server has written meanwhile.
    """

    def __init__(self, file: Path, owner: Owner | None = None) -> None:
        self.file, self.where = file, str(file.parent)
        self.is_shared = owner is None
        self._owner = owner
        with ExitStack() as undo:
            self._watched = WatchedFile(file)
            undo.callback(self._watched.close)
            self._connection: Connection = for_writing(file)
            undo.pop_all()

    @contextmanager
    def transaction(self, doing: str) -> Iterator[OneRun]:
        """Yield the run in a transaction; of a run that a server receives, the file is looked for first."""
        happened = self.look() if self.is_shared else None
        if happened is not None:
            raise RunGone(happened.text)
        with in_our_words(self.file, doing), self._connection.begin():
            yield OneRun(self._connection)

    def look(self) -> Happened | None:
        """Return what became of the file."""
        return self._watched.look()

    def close(self, *, ended: bool) -> None:
        """Close the file, whose log is merged into it where no reader is in the way."""
        disconnect(self._connection)
        self._watched.close()
        if self._owner is not None:
            self._owner.release(ended=ended)

    def discard(self) -> None:
        """Close the file and remove it, while nobody else can write it."""
        disconnect(self._connection)
        self._watched.close()
        remove(self.file)
        if self._owner is not None:
            self._owner.release(ended=True)


def remove(file: Path) -> None:
    """Remove a run's file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
