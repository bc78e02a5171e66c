"""A run in a file of its own: the source and the target that readers and the writer of ``run.sqlite`` use."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from stabmon.errors import StoreError
from stabmon.series import Layout
from stabmon.store import integrity
from stabmon.store.connect import FILE, OPENING, disconnect, for_reading, for_writing, in_our_words
from stabmon.store.one_run import OneRun
from stabmon.store.owner import Owner, holder
from stabmon.store.place import RunGone
from stabmon.store.watched_file import Happened, WatchedFile

_MOST_CHECKED = 1000
_checked: dict[Path, tuple[tuple[int, int, int], int]] = {}
"""Files that this process has checked: their identity, and the sequence before which no fold is checked again."""


class FileSource:
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


class FileTarget:
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


def reserve(folder: Path, *, resume: bool = False) -> Owner:
    """Return the ownership of ``folder``, which is made, for a run that is to start or, with ``resume``, to go on.

    Raises:
        StoreError: a run is there and ``resume`` is False, or it is foreign, newer or damaged; another process writes
            it; the folder cannot be made.
    """
    from stabmon.store.reader import RunReader

    file = Path(folder) / FILE
    with ExitStack() as undo, in_our_words(file, "resuming the run" if resume else "creating the run"):
        file.parent.mkdir(parents=True, exist_ok=True)
        refuse_existing(file, resume=resume)
        owner = Owner(file.parent)
        undo.callback(owner.release)
        if refuse_existing(file, resume=resume):
            RunReader(FileSource(file)).close()
        undo.pop_all()
        return owner


def refuse_existing(file: Path, *, resume: bool) -> bool:
    """Return whether there is a run to go on with; raise where there is one that must not be written over."""
    there = file.exists() and (not file.is_file() or file.stat().st_size > 0)
    if there and not resume:
        raise StoreError(
            f"the run {file.parent.name!r} exists already at {file.parent}: give another name, pass resume=True to go "
            "on with it, or delete the folder"
        )
    return there
