"""A store of many runs as a folder: one folder and one SQLite file each."""

import os
import time
from itertools import count
from pathlib import Path

from sqlalchemy import insert

from stabmon.errors import StoreError
from stabmon.names import check_run_name, legible, natural_key
from stabmon.records import RunInfo
from stabmon.series import Layout
from stabmon.store import schema
from stabmon.store.connect import FILE, in_our_words
from stabmon.store.end import is_begun
from stabmon.store.integrity import NothingYet
from stabmon.store.interface import RunMark
from stabmon.store.owner import LOCK, holder
from stabmon.store.reader import RunReader, open_run
from stabmon.store.run_file import WrittenFile
from stabmon.store.runs import Read, RunSummary, as_known, is_below, nested, summary
from stabmon.store.tokens import Tokens, in_folder
from stabmon.store.writer import RunWriter

_FILES = (FILE, *(f"{FILE}{end}" for end in ("-wal", "-shm", "-journal")), LOCK, "events.out.tfevents.*")
"""Names of the files of a run, the store's first."""


class RunFolder:
    """The runs in ``directory``."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.tokens: Tokens = in_folder(self.directory)

    @property
    def where(self) -> str:
        """The folder."""
        return legible(str(self.directory))

    def check(self) -> None:
        """Look into the folder."""
        try:
            with os.scandir(self.directory):
                pass
        except OSError as error:
            raise StoreError(f"the served folder cannot be read: {error.strerror}") from error

    def marks(self) -> dict[str, RunMark]:
        """Return a mark of every folder; one without a run changes with time too."""
        return {self._name(folder): _mark(folder) for folder in nested(self.directory)}

    def names(self) -> list[str]:
        """Return the names of the folders with a run's file."""
        there = (self._name(folder) for folder in nested(self.directory) if (folder / FILE).exists())
        return sorted(map(legible, there), key=natural_key)

    def has(self, name: str) -> bool:
        """Return whether the folder ``name`` has a run's file."""
        path = self._path(name)
        return path is not None and os.path.lexists(path / FILE)

    def open(self, name: str) -> RunReader:
        """Open the run's file."""
        path = self._path(name)
        if path is None:
            raise StoreError(f"no run can be named {name!r}")
        return open_run(path)

    def summary(self, name: str, read: Read = as_known) -> RunSummary | None:
        """Describe the run in the folder ``name``."""
        path = self._path(name)
        found = None if path is None else summary(path, read)
        return found and found.model_copy(update={"name": legible(name)})

    def holder(self, name: str) -> str | None:
        """Return who holds the run's lock."""
        return holder(self.directory / name)

    def receive(self, info: RunInfo, layout: Layout) -> tuple[str, RunWriter]:
        """Open or make the run of a writer elsewhere; a folder that holds anything else is left alone."""
        check_run_name(info.name)
        for number in count(1):
            name = info.name if number == 1 else f"{info.name}-{number}"
            file = self.directory / name / FILE
            with in_our_words(file, "receiving the run"):
                file.parent.mkdir(parents=True, exist_ok=True)
                if _is_free(file) or _is_same(file, info, layout):
                    writer = _received(file, info, layout)
                    if writer is not None:
                        return name, writer
        raise AssertionError  # the numbers do not end

    def delete(self, name: str) -> None:
        """Delete the files of a run that no process of this machine writes; what else is in its folder stays."""
        if self.holder(name):
            raise StoreError(f"the run {name!r} is being written by {self.holder(name)}: end it first")
        folder = self.directory / name
        with in_our_words(folder / FILE, "deleting the run"):
            for pattern in _FILES:
                for file in folder.glob(pattern):
                    file.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()

    def close(self) -> None:
        """Nothing is kept open."""

    def _path(self, name: str) -> Path | None:
        return self.directory / name if is_below(name) else None

    def _name(self, folder: Path) -> str:
        """Return a run's address: its path below the served folder."""
        return folder.relative_to(self.directory).as_posix()


def _is_free(file: Path) -> bool:
    """Return whether a folder holds nothing but, perhaps, the beginning of a run's file."""
    try:
        open_run(file).close()
    except NothingYet:
        return not holder(file.parent)
    except StoreError:
        return not os.listdir(file.parent)
    return False


def _is_same(file: Path, info: RunInfo, layout: Layout) -> bool:
    """Return whether this very run is stored here, and no process of this machine writes it."""
    if holder(file.parent):
        return False
    try:
        with open_run(file) as run:
            return run.info == info and run.layout == layout
    except StoreError:
        return False


def _received(file: Path, info: RunInfo, layout: Layout) -> RunWriter | None:
    """Return the writer of the run's file, begun if it is new; None where another run was faster."""
    target = WrittenFile(file)
    writer = RunWriter(target, layout)
    try:
        with target.transaction("receiving the run") as run:
            schema.metadata.create_all(run.connection)
            if not is_begun(run):
                run.connection.execute(insert(schema.version), {"schema": schema.SCHEMA})
                writer.begin(run, info)
                return writer
        if _is_same(file, info, layout):
            with target.transaction("receiving the run") as run:
                writer.take_up(run)
            return writer
    except BaseException:
        target.close(ended=False)
        raise
    target.close(ended=False)
    return None


def _mark(folder: Path) -> RunMark:
    """Return a mark of a folder; an empty log, which a reader leaves, is as good as none."""
    file, log = _facts(folder / FILE), _facts(folder / f"{FILE}-wal")
    if not file:
        is_run = os.path.lexists(folder / FILE) or os.path.lexists(folder / LOCK)
        return RunMark((int(time.monotonic()),), is_run=is_run)
    return RunMark((file, log), is_written=bool(log))


def _facts(file: Path) -> tuple[int, ...]:
    """Return what changes with a file; nothing where it is missing, empty, or may not be looked at."""
    try:
        found = os.lstat(file)
    except OSError:
        return ()
    return (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode) if found.st_size else ()
