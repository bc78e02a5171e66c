"""Interface between a server and a store of many runs: a folder of files, or a team's database."""

from typing import NamedTuple, Protocol

from stabmon.records import RunInfo
from stabmon.series import Layout
from stabmon.store.reader import RunReader
from stabmon.store.runs import Read, RunSummary
from stabmon.store.tokens import Tokens
from stabmon.store.writer import RunWriter


class RunMark(NamedTuple):
    """Facts of a run that change whenever it does: where two are equal, nothing is to be read again."""

    facts: tuple[object, ...]
    is_written: bool = False
    """It may change many times a second."""
    is_run: bool = True
    """False where there may be nothing yet, or nothing at all."""


class Store(Protocol):
    """Runs by their names. Any thread may call it."""

    @property
    def where(self) -> str:
        """The folder, or the database without its password, for messages."""

    @property
    def tokens(self) -> Tokens:
        """The secrets of those who may read and write."""

    def check(self) -> None:
        """Raise a StoreError where the store does not answer."""

    def marks(self) -> dict[str, RunMark]:
        """Return a mark of every run, or of what may be one.

        Raises:
            StoreError: the store does not answer.
        """

    def names(self) -> list[str]:
        """Return the names of the runs that can be opened."""

    def has(self, name: str) -> bool:
        """Return whether there is something to open; no error for a name that no run can have."""

    def open(self, name: str) -> RunReader:
        """Open a run for reading.

        Raises:
            StoreError: it is missing, foreign, damaged, or written by a newer stabmon.
        """

    def summary(self, name: str, read: Read = ...) -> RunSummary | None:
        """Describe a run, or what keeps it from being read; None where there is none."""

    def holder(self, name: str) -> str | None:
        """Return who writes a run, "" where nobody does, None where that cannot be known."""

    def receive(self, info: RunInfo, layout: Layout) -> tuple[str, RunWriter]:
        """Open the run that ``info`` describes, for a writer elsewhere, or make it: return its name here, and a writer.

        The name is another one where a run of that name is there and is not the same.

        Raises:
            StoreError: it cannot be written.
        """

    def delete(self, name: str) -> None:
        """Delete a run.

        Raises:
            StoreError: it is being written on this machine, or cannot be deleted.
        """

    def close(self) -> None:
        """Give back what is open."""
