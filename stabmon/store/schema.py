"""The tables of a run, written so that SQLite takes them today and PostgreSQL could take them unchanged.

run        one line a run: what is known of it when it starts, and the layout of its rows
attempt    a run that is resumed at an earlier step goes on in a new attempt; the earlier samples stay
tail       one line a sample: the whole row as one float32 blob, until it is folded
fold       128 samples that were folded together: their steps and times
chunk      one line a fold and metric: values [columns, samples], float32, a column's samples side by side
level      one line a fold, metric and bucket size: low, mean, high and count of each bucket, [columns, buckets]
heartbeat  one line a run: its current state
finding    one line an event, with the whole finding as JSON

Every number of a series travels inside a blob: SQLite turns a REAL NaN into NULL, and a blob keeps each bit. A sample's
``sequence`` counts all samples of a run over all attempts, from 0; it is also the cursor of live readers.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Double, Integer, LargeBinary, MetaData, String, Table, Text
from sqlalchemy.types import TypeEngine

SCHEMA = 3
"""Version of these tables and of the JSON in them; a reader refuses a file of a higher one.

1: as first released. 2: findings have ``confidence``, ``follows`` and ``lead``, and a run's line may hold its
``limits``. 3: findings have ``times`` and ``reopened``. The tables are the same, so that an older file is read as it
is, and becomes one of this schema where a run goes on in it."""

FOLD = 128
"""Samples in a full fold."""

LEVELS = (32, 128)
"""Bucket sizes, in samples, that are kept ready for zooming out."""

RUN = 1
"""Number of the only run of a file."""

metadata = MetaData()
_Kind = TypeEngine[Any] | type[TypeEngine[Any]]


def _table(name: str, keys: list[Column[Any]], *columns: Column[Any]) -> Table:
    """Make a table whose lines belong to a run; ``keys`` distinguish a run's lines."""
    run = Column("run", Integer, primary_key=True, autoincrement=False)
    return Table(name, metadata, run, *keys, *columns)


def _key(name: str, kind: _Kind) -> Column[Any]:
    return Column(name, kind, primary_key=True, autoincrement=False)


def _column(name: str, kind: _Kind, nullable: bool = False) -> Column[Any]:
    return Column(name, kind, nullable=nullable)


version = Table("stabmon", metadata, Column("schema", Integer, primary_key=True, autoincrement=False))
run = _table(
    "run",
    [],
    _column("name", Text),
    _column("info", Text),
    _column("layout", Text),
)
attempt = _table("attempt", [_key("number", Integer)], _column("first", BigInteger), _column("time", Double))
tail = _table(
    "tail",
    [_key("sequence", BigInteger)],
    _column("attempt", Integer),
    _column("step", BigInteger),
    _column("time", Double),
    _column("data", LargeBinary),
)
fold = _table(
    "fold",
    [_key("sequence", BigInteger)],
    _column("attempt", Integer),
    _column("samples", Integer),
    _column("first", BigInteger),
    _column("last", BigInteger),
    _column("steps", LargeBinary),
    _column("times", LargeBinary),
)
chunk = _table(
    "chunk",
    [_key("metric", String(120)), _key("sequence", BigInteger)],
    _column("data", LargeBinary),
)
level = _table(
    "level",
    [_key("metric", String(120)), _key("size", Integer), _key("sequence", BigInteger)],
    _column("data", LargeBinary),
)
heartbeat = _table(
    "heartbeat",
    [],
    _column("state", String(20)),
    _column("step", BigInteger),
    _column("time", Double),
    _column("samples", BigInteger),
    _column("dropped", BigInteger),
    _column("overhead", Double, nullable=True),
    _column("interval", Double),
)
finding = _table(
    "finding",
    [_key("code", String(20)), _key("layer", String(400)), _key("opened", BigInteger)],
    _column("severity", String(20)),
    _column("cleared", BigInteger, nullable=True),
    _column("document", Text),
)
