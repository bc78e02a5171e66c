"""Place of a run: a file of its own, or a team's database. A reader and a writer need no more of it than this."""

from contextlib import AbstractContextManager
from typing import Protocol

from stabmon.errors import StoreError
from stabmon.series import Layout
from stabmon.store.one_run import OneRun
from stabmon.store.watched_file import Happened


class RunGone(StoreError):
    """The run was deleted, or replaced by another one, while it was read or written."""


class ReadPlace(Protocol):
    """A run to be read, by several threads at once."""

    def snapshot(self, doing: str) -> AbstractContextManager[OneRun]:
        """Open a transaction: what is read in it belongs to one moment.

        Raises:
            StoreError: what went wrong inside, in the user's words; ``doing`` says what was done.
        """

    def check(self, run: OneRun) -> None:
        """Refuse a run whose description must not be read."""

    def check_contents(self, run: OneRun, layout: Layout) -> None:
        """Refuse a run whose samples are not whole."""

    def holder(self) -> str | None:
        """Return who writes the run, "" where nobody does, None where that cannot be known."""

    def bytes(self) -> int:
        """Return the bytes that it takes."""

    def close(self) -> None:
        """Give back what is open."""


class WritePlace(Protocol):
    """A run to be written, by one thread at a time."""

    where: str
    """The place, as messages name it."""
    is_shared: bool
    """True where another process may write the same run between two transactions."""

    def transaction(self, doing: str) -> AbstractContextManager[OneRun]:
        """Open a transaction, which is written whole or not at all.

        Raises:
            StoreError: nothing was written; ``doing`` says what was done.
            RunGone: the run is not there any more.
        """

    def look(self) -> Happened | None:
        """Return what became of the place while it was written, or None while readers find it."""

    def close(self, *, ended: bool) -> None:
        """Give back what is open; ``ended``: the run's state says how it ended."""

    def discard(self) -> None:
        """Remove a run that has not begun, and give back what is open."""
