"""One writer a run, across processes: a lock file in the run's folder, which the system frees when its process dies."""

import contextlib
import fcntl
import os
import socket
import time
import weakref
from pathlib import Path

from stabmon.errors import StoreError

LOCK = "run.lock"
"""Name of the lock file; it names its writer, and is removed when the run is closed."""

_PATIENCE = 0.5
"""Seconds that a new writer tries: a reader that asks whether the lock is held holds it for a moment."""

_owners: "weakref.WeakSet[Owner]" = weakref.WeakSet()


class Owner:
    """Holds the folder of a run until ``release``; a file system without locks holds nothing, and keeps no lock file.

    file: name of the lock file.

    A process that was forked from the writer holds nothing: its copy of the lock would outlive the writer.

    Raises:
        StoreError: another writer holds it.
    """

    def __init__(self, folder: Path, file: str = LOCK) -> None:
        self._file = Path(folder) / file
        self._descriptor: int | None = _acquired(self._file)
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
            _owners.add(self)

    def release(self, *, ended: bool = False) -> None:
        """Let another writer have the run; a second call does nothing.

        ended: the run's file says how it ended. Otherwise the lock file stays: that nobody holds it shows a crash.
        """
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # the folder is gone, or read-only by now
            if ended and _is_at(self._descriptor, self._file):
                self._file.unlink()
        with contextlib.suppress(OSError):  # closing alone would leave the lock to a process that C code forked
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._forget()

    def _forget(self) -> None:
        """Close this process's copy of the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def holder(folder: Path) -> str | None:
    """Return who writes the run in ``folder``, as "process 12 on host", or "" where nobody does.

    None: it cannot be known from here, because no lock was taken or the writer runs on another machine.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        named = _named(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if not _is_at(descriptor, folder / LOCK):  # its writer closed the run while we looked
            return None
    except BlockingIOError:
        return named or "another process"
    except OSError:
        return None
    else:
        return "" if named.endswith(f" on {socket.gethostname()}") else None
    finally:
        os.close(descriptor)


def _acquired(file: Path) -> int | None:
    """Return a descriptor of ``file`` that holds its lock, or None where there are no locks."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, file):
                return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                who = _named(descriptor) or "another process"
                os.close(descriptor)
                raise StoreError(
                    f"the run at {file.parent} is being written by another monitor ({who}): close that one first, or "
                    "give another name"
                ) from None
        except OSError:
            os.close(descriptor)
            file.unlink(missing_ok=True)
            return None
        os.close(descriptor)
        time.sleep(0.02)


def _is_at(descriptor: int, file: Path) -> bool:
    """Return whether the open file is the one at that path: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _named(descriptor: int) -> str:
    """Return the writer that the lock file names, or nothing where none has written its name."""
    process, _, host = os.pread(descriptor, 300, 0).decode(errors="replace").strip().partition(" ")
    return f"process {process} on {host}" if host else ""


def _after_fork() -> None:
    for owner in tuple(_owners):
        owner._forget()
    _owners.clear()


os.register_at_fork(after_in_child=_after_fork)
