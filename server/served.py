"""Opening a run of the served store by name, with an error that lists the runs there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from stabmon.errors import StoreError
from stabmon.store import RunReader
from stabmon.store.interface import Store


def served(request: Request) -> Store:
    """Return the store that is served."""
    store: Store = request.app.state.store
    return store


NAMED = 20
"""Most runs that a message names."""

Served = Annotated[Store, Depends(served)]


@contextmanager
def reading(store: Store, name: str) -> Iterator[RunReader]:
    """Open the run ``name`` of ``store`` for the length of the block.

    Raises:
        HTTPException: 404, no such run; 410, it was deleted while it was read.
        StoreError: it is there and cannot be read.
    """
    if not store.has(name):
        raise HTTPException(404, absent(store, name))
    try:
        with store.open(name) as run:
            yield run
    except StoreError as error:
        if store.has(name):
            raise
        raise HTTPException(410, f"the run {name!r} was deleted while it was read") from error


def absent(store: Store, name: str) -> str:
    """Say that a run is not there, or not yet."""
    if store.summary(name) is not None:
        return f"the run {name!r} is starting: nothing is stored before the end of its first step"
    names = store.names()
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"there is no run {name!r} in {store.where}; there are: {', '.join(names[:NAMED]) + more or 'none yet'}"
