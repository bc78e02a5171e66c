"""Opening a run of the served folder by name, with an error that lists the runs there are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from stabmon import store
from stabmon.errors import StoreError
from stabmon.store import RunReader


def served(request: Request) -> Path:
    """Return the folder that is served."""
    folder = request.app.state.directory
    assert isinstance(folder, Path)
    return folder


Folder = Annotated[Path, Depends(served)]


@contextmanager
def reading(folder: Path, name: str) -> Iterator[RunReader]:
    """Open the run ``name`` of ``folder`` for the length of the block.

    Raises:
        HTTPException: 404, no such run; 410, it was deleted while it was read.
        StoreError: it is there and cannot be read.
    """
    path = folder / name
    if name in {"", ".", ".."} or path.parent != folder or not os.path.lexists(path / store.FILE):
        raise HTTPException(404, f"there is no run {name!r} in {folder}; there are: {known_runs(folder)}")
    try:
        with store.open_run(path) as run:
            yield run
    except StoreError as error:
        if os.path.lexists(path / store.FILE):
            raise
        raise HTTPException(410, f"the run {name!r} was deleted while it was read") from error


def known_runs(folder: Path) -> str:
    """Return the names of the runs in ``folder``, for messages."""
    return ", ".join(summary.name for summary in store.runs(folder)) or "none yet"
