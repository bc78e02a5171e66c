"""The reason that a run's file could not be used, found on the disk: SQLite reports ten causes as "unable to open"."""

import errno
import math
import os
import resource
from pathlib import Path

LOCKED = "another process has locked it"
_LEAST_ROOM = 1 << 16
"""Bytes that SQLite needs for the index of its log; without them it reports an I/O error."""
_BY_NUMBER = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "the file has reached the largest size that this process may write (`ulimit -f`)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission is missing",
    errno.EPERM: "permission is missing",
    errno.EMFILE: "this process has too many files open (`ulimit -n` raises the limit)",
    errno.ENFILE: "this machine has too many files open",
    errno.EIO: "the disk does not answer as it should",
    errno.ESTALE: "the network file system lost the folder",
}


def reason(file: Path, error: BaseException) -> str:
    """Return in one clause why ``error`` came of using ``file``."""
    said = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if "malformed" in said or "not a database" in said:
        return "it is damaged: it holds something else than what was written"
    if "locked" in said:
        return LOCKED
    if number == errno.ENOSPC or "full" in said or ("disk I/O error" in said and _room(file) < _LEAST_ROOM):
        return _full(file)
    if "disk I/O error" in said and resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return _BY_NUMBER[errno.EFBIG]
    if number in _BY_NUMBER:
        return _BY_NUMBER[number]
    return _of_path(file) or said


def _room(file: Path) -> float:
    """Return the bytes that are free where ``file`` is."""
    try:
        disk = os.statvfs(file.parent)
    except OSError:
        return math.inf
    return disk.f_bavail * disk.f_frsize


def _full(file: Path) -> str:
    """Distinguish a disk without room from one without inodes."""
    try:
        disk = os.statvfs(next(folder for folder in file.parents if folder.exists()))
    except (OSError, StopIteration):
        return "the disk is full: free some space"
    if disk.f_files and not disk.f_favail and disk.f_bavail:
        return "the disk has no inodes left: delete some files"
    return "the disk is full: free some space"


def _of_path(file: Path) -> str | None:
    """Return what is wrong with the path itself or with this process, or None where nothing is."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
        file.stat()
    except NotADirectoryError:
        wrong = next((folder for folder in file.parents if folder.exists() and not folder.is_dir()), file.parent)
        return f"{wrong} is a file and not a folder"
    except FileNotFoundError:
        return None if _may_write(file.parent) else _no_permission(file.parent)
    except OSError as error:
        return _BY_NUMBER.get(error.errno or 0)
    return None if _may_write(file) and _may_write(file.parent) else _no_permission(file)


def _may_write(path: Path) -> bool:
    return not path.exists() or os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _no_permission(path: Path) -> str:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return _BY_NUMBER[errno.EROFS]
    return f"permission is missing to write {path}"
