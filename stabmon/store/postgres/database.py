"""The runs of a team in one PostgreSQL database, of which several servers may be the front."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from sqlalchemy import Connection, Engine, create_engine, exc, select
from sqlalchemy.engine import make_url

from stabmon.errors import ConfigError, StoreError
from stabmon.names import check_run_name, natural_key
from stabmon.records import RunInfo
from stabmon.series import Layout
from stabmon.store import schema
from stabmon.store.interface import RunMark
from stabmon.store.one_run import OneRun
from stabmon.store.place import RunGone
from stabmon.store.postgres.migrations import upgrade
from stabmon.store.postgres.place import ReadRows, WrittenRows, delete_lines, in_our_words, place_of
from stabmon.store.reader import RunReader
from stabmon.store.runs import Read, RunSummary, as_known, described
from stabmon.store.tokens import Tokens
from stabmon.store.writer import RunWriter

CONNECTIONS = 20
"""Most connections of a server; PostgreSQL allows 100 in all, unless it is configured otherwise."""


class PostgresStore:
    """The runs in the database at ``url``; its tables are made, or brought to the present schema.

    Raises:
        ConfigError: ``url`` is none of PostgreSQL, or psycopg is not installed.
        StoreError: the database does not answer, or is of a newer stabmon.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        with in_our_words(self._engine, "opening the store"):
            upgrade(self._engine)
        self.tokens = Tokens(self._begin_tokens)

    @property
    def where(self) -> str:
        """The database's address without its password."""
        return place_of(self._engine)

    def check(self) -> None:
        """Ask for nothing."""
        with in_our_words(self._engine, "reaching the store"), self._engine.connect() as connection:
            connection.execute(select(1))

    def marks(self) -> dict[str, RunMark]:
        """Return a mark of every run: its heartbeat, which changes whenever anything of the run does."""
        query = select(schema.run.c.name, schema.heartbeat).join_from(
            schema.run, schema.heartbeat, schema.run.c.run == schema.heartbeat.c.run
        )
        with in_our_words(self._engine, "listing the runs"), self._engine.connect() as connection:
            return {name: RunMark(tuple(facts), True) for name, *facts in connection.execute(query)}

    def names(self) -> list[str]:
        """Return the names of the runs."""
        return sorted(self.marks(), key=natural_key)

    def has(self, name: str) -> bool:
        """Return whether there is such a run."""
        return self._number(name) is not None

    def open(self, name: str) -> RunReader:
        """Open a run for reading."""
        number = self._number(name)
        if number is None:
            raise RunGone(f"there is no run {name!r} in {self.where}")
        return RunReader(ReadRows(self._engine, number))

    def summary(self, name: str, read: Read = as_known) -> RunSummary | None:
        """Describe a run."""
        bare = RunSummary(name=name, path=name)
        try:
            with self.open(name) as run:
                return read(run, described(run, bare))
        except RunGone:
            return None
        except StoreError as error:
            return bare.model_copy(update={"problem": str(error)})

    def holder(self, name: str) -> str | None:
        """Return None: writers are elsewhere."""
        return None

    def receive(self, info: RunInfo, layout: Layout) -> tuple[str, RunWriter]:
        """Open or make the run of a writer elsewhere."""
        check_run_name(info.name)
        for number in count(1):
            name = info.name if number == 1 else f"{info.name}-{number}"
            writer = self._received(name, info, layout)
            if writer is not None:
                return name, writer
        raise AssertionError  # the numbers do not end

    def delete(self, name: str) -> None:
        """Delete a run; its writer, if there is one, learns it at its next sample."""
        number = self._number(name)
        if number is not None:
            with in_our_words(self._engine, "deleting the run"), self._engine.begin() as connection:
                delete_lines(OneRun(connection, number))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _number(self, name: str) -> int | None:
        if "\0" in name:
            return None
        with in_our_words(self._engine, f"looking for the run {name!r}"), self._engine.connect() as connection:
            query = select(schema.run.c.run).where(schema.run.c.name == name)
            return connection.execute(query).scalar_one_or_none()

    def _received(self, name: str, info: RunInfo, layout: Layout) -> RunWriter | None:
        """Return the writer of the run ``name``, made if it is not there; None where it is another run."""
        number = self._number(name)
        if number is None:
            return self._made(name, info, layout) or self._received(name, info, layout)
        with self.open(name) as run:
            if run.info != info or run.layout != layout:
                return None
        target = WrittenRows(self._engine, number, name)
        writer = RunWriter(target, layout)
        with target.transaction("receiving the run") as lines:
            writer.take_up(lines)
        return writer

    def _made(self, name: str, info: RunInfo, layout: Layout) -> RunWriter | None:
        """Return the writer of a new run; None where another server has just made one of this name."""
        with in_our_words(self._engine, "making the run"), self._engine.begin() as connection:
            number = connection.exec_driver_sql("SELECT nextval(pg_get_serial_sequence('run', 'run'))").scalar_one()
        target = WrittenRows(self._engine, number, name)
        writer = RunWriter(target, layout)
        try:
            with target.transaction("making the run") as run:
                writer.begin(run, info, name)
        except StoreError as error:
            if isinstance(error.__cause__, exc.IntegrityError):
                return None
            raise
        return writer

    @contextmanager
    def _begin_tokens(self, writes: bool) -> Iterator[Connection]:
        with in_our_words(self._engine, "using the tokens"), self._engine.begin() as connection:
            yield connection


def _engine(text: str) -> Engine:
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        raise ConfigError(
            "a team's store must be postgresql+psycopg://user@host/database; what was given (not shown, it may hold a "
            "password) is none"
        )
    try:
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_size=CONNECTIONS // 2,
            max_overflow=CONNECTIONS - CONNECTIONS // 2,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10, "application_name": "stabmon"},
        )
    except ImportError as error:
        raise ConfigError("a PostgreSQL store needs psycopg: pip install 'stabmon[postgres]'") from error
