"""A run among others in PostgreSQL, to be read and to be written."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Engine, exc, func, select

from stabmon.errors import StoreError
from stabmon.series import Layout
from stabmon.store import schema
from stabmon.store.one_run import OneRun
from stabmon.store.place import RunGone
from stabmon.store.watched_file import Happened

ONE_MOMENT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""Options of a reading transaction: all of it belongs to one moment."""


def place_of(engine: Engine) -> str:
    """Return the database's address without its password."""
    return engine.url.render_as_string(hide_password=True)


@contextmanager
def in_our_words(engine: Engine, doing: str) -> Iterator[None]:
    """Turn what the database raises into a ``StoreError`` that says where and what was done."""
    try:
        yield
    except exc.NoResultFound as error:
        raise RunGone(f"the run in {place_of(engine)} was deleted while {doing}") from error
    except exc.SQLAlchemyError as error:
        said = str(error.orig if isinstance(error, exc.DBAPIError) and error.orig else error).strip()
        raise StoreError(f"{place_of(engine)}: {doing} failed: {said}") from error
    except ValidationError as error:
        raise StoreError(f"{place_of(engine)}: {doing} failed, a line holds something else than was written") from error


class ReadRows:
    """The lines of one run, read-only; a connection is taken for each snapshot, so that many can follow runs."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine, self._number = engine, number

    @contextmanager
    def snapshot(self, doing: str) -> Iterator[OneRun]:
        """Yield the run in a transaction."""
        of_one_moment = self._engine.execution_options(**ONE_MOMENT)
        with in_our_words(self._engine, doing), of_one_moment.begin() as connection:
            yield OneRun(connection, self._number)

    def check(self, run: OneRun) -> None:
        """Nothing: the database holds what a server wrote, in its types."""

    def check_contents(self, run: OneRun, layout: Layout) -> None:
        """Nothing: see ``check``."""

    def holder(self) -> str | None:
        """Return None: writers are elsewhere."""
        return None

    def bytes(self) -> int:
        """Return the bytes of the run's values."""
        with self.snapshot("reading its sizes") as run:
            sums = [select(func.sum(func.octet_length(t.c.data))) for t in (schema.tail, schema.chunk, schema.level)]
            return sum(int(run.read(size).scalar_one() or 0) for size in sums)

    def close(self) -> None:
        """Nothing is kept open."""


class WrittenRows:
    """The lines of one run, to be written; another server may write them too, between two transactions."""

    is_shared = True

    def __init__(self, engine: Engine, number: int, name: str) -> None:
        self._engine, self._number = engine, number
        self.where = f"{place_of(engine)} ({name})"

    @contextmanager
    def transaction(self, doing: str) -> Iterator[OneRun]:
        """Yield the run in a transaction."""
        with in_our_words(self._engine, doing), self._engine.begin() as connection:
            yield OneRun(connection, self._number)

    def look(self) -> Happened | None:
        """Return None: a transaction finds out."""
        return None

    def close(self, *, ended: bool) -> None:
        """Nothing is kept open."""

    def discard(self) -> None:
        """Delete the run's lines."""
        with self.transaction("discarding the run") as run:
            delete_lines(run)


def delete_lines(run: OneRun) -> None:
    """Delete everything of a run, itself last."""
    own: list[Any] = [table for table in schema.metadata.sorted_tables if "run" in table.c and table is not schema.run]
    for table in (*own, schema.run):
        run.remove(table)
