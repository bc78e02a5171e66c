"""The lines of one run in an open transaction: a file holds one run, a team's database many."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Delete,
    FromClause,
    Insert,
    Join,
    Result,
    Select,
    Table,
    Update,
    delete,
    insert,
    update,
)

from stabmon.store import schema


class OneRun(NamedTuple):
    """A transaction that sees and changes the lines of the run ``number`` alone."""

    connection: Connection
    number: int = schema.RUN

    def read(self, query: "Select[*tuple[Any, ...]]") -> "Result[*tuple[Any, ...]]":
        """Return the answer to ``query``, of which every table is that of this run."""
        tables = [table for source in query.get_final_froms() for table in _tables(source)]
        return self.connection.execute(query.where(*(table.c.run == self.number for table in tables)))

    def add(self, table: Table, **columns: object) -> None:
        """Add one line."""
        self.connection.execute(insert(table), {"run": self.number, **columns})

    def add_all(self, table: Table, lines: list[dict[str, Any]]) -> None:
        """Add ``lines``, of which there may be none."""
        if lines:
            self.connection.execute(insert(table), [{"run": self.number, **line} for line in lines])

    def change(self, table: Table, **columns: object) -> None:
        """Change the run's line in a table that has one line a run."""
        self.connection.execute(update(table).where(table.c.run == self.number).values(**columns))

    def remove(self, table: Table, **key: object) -> None:
        """Remove the lines whose columns are ``key``, or all of the run."""
        own = [table.c.run == self.number, *(table.c[name] == value for name, value in key.items())]
        self.connection.execute(delete(table).where(*own))


class Prepared:
    """A statement that is compiled once: building and caching the two of each sample took 40 of its 110 µs."""

    def __init__(self, statement: Insert | Update | Delete, connection: Connection) -> None:
        compiled: Any = statement.compile(connection)
        self._text, self._order = str(compiled), compiled.positiontup

    def __call__(self, connection: Connection, **values: object) -> None:
        """Execute it with the values of its columns and parameters."""
        given = values if self._order is None else tuple(values[name] for name in self._order)
        connection.exec_driver_sql(self._text, given)


def _tables(source: FromClause) -> Iterator[Table]:
    if isinstance(source, Join):
        yield from _tables(source.left)
        yield from _tables(source.right)
    elif isinstance(source, Table):
        yield source
