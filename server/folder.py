"""Opening a run of the served folder by name, with an error that lists the runs there are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from stabmon import store
from stabmon.errors import StoreError
from stabmon.names import legible, natural_key
from stabmon.store import RunReader
from stabmon.store.runs import DEPTH, nested, summary


def served(request: Request) -> Path:
    """Return the folder that is served."""
    folder = request.app.state.directory
    assert isinstance(folder, Path)
    return folder


NAMED = 20
"""Most runs that a message names."""

Folder = Annotated[Path, Depends(served)]


def path_of(folder: Path, name: str) -> Path:
    """Return the folder of the run ``name``, whether it is there or not.

    Raises:
        HTTPException: 404, no run can have this name.
    """
    if not _is_below(name):
        raise HTTPException(404, absent(folder, name))
    return folder / name


def _is_below(name: str) -> bool:
    """Return whether a run can have this address: its folder's name, after those of the folders that it lies in."""
    parts = name.split("/")
    return len(parts) <= DEPTH and all(part and PurePath(part).name == part and part != ".." for part in parts)


@contextmanager
def reading(folder: Path, name: str) -> Iterator[RunReader]:
    """Open the run ``name`` of ``folder`` for the length of the block.

    Raises:
        HTTPException: 404, no such run; 410, it was deleted while it was read.
        StoreError: it is there and cannot be read.
    """
    path = path_of(folder, name)
    if not os.path.lexists(path / store.FILE):
        raise HTTPException(404, absent(folder, name))
    try:
        with store.open_run(path) as run:
            yield run
    except StoreError as error:
        if os.path.lexists(path / store.FILE):
            raise
        raise HTTPException(410, f"the run {name!r} was deleted while it was read") from error


def absent(folder: Path, name: str) -> str:
    """Say that a run is not there, or not yet."""
    path = folder / name
    with suppress(ValueError, OSError):  # a name that no file can have
        if _is_below(name) and path.is_dir() and summary(path) is not None:
            return f"the run {name!r} is starting: nothing is stored before the end of its first step"
    return f"there is no run {name!r} in {folder}; there are: {known_runs(folder)}"


def known_runs(folder: Path) -> str:
    """Return the names of the runs in ``folder``, for messages."""
    there = [one for one in nested(folder) if (one / store.FILE).exists()]
    names = sorted((legible(one.relative_to(folder).as_posix()) for one in there), key=natural_key)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more or "none yet"
