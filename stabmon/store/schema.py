"""The tables of a run, for SQLite, one run a file, and PostgreSQL, all runs in one database (see its migrations).

run        one line a run: what is known of it when it starts, and the layout of its rows
attempt    a run that is resumed at an earlier step goes on in a new attempt; the earlier samples stay
tail       one line a sample: the whole row as one float32 blob, until it is folded
fold       128 samples that were folded together: their steps and times
logged     one line a metric and hand-over: numbers logged at steps that are no samples
chunk      one line a fold and metric: values [columns, samples], float32, a column's samples side by side
level      one line a fold, metric and bucket size: low, mean, high and count of each bucket, [columns, buckets]
heartbeat  one line a run: its current state
finding    one line an event, with the whole finding as JSON
failure    one line a failure to record, of all processes that wrote the run

Every number of a series travels inside a blob: SQLite turns a REAL NaN into NULL, and a blob keeps each bit. A sample's
``sequence`` counts all samples of a run over all attempts, from 0; it is also the cursor of live readers.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Double,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    select,
)
from sqlalchemy.types import TypeEngine

SCHEMA = 4
"""Version of these tables and of the JSON in them; a reader refuses a file of a higher one.

1: as first released. 2: findings have ``confidence``, ``follows`` and ``lead``, and a run's line may hold its
``limits``. 3: findings have ``times`` and ``reopened``. 4: the tables ``logged`` and ``failure``. An older
file is read as it is, and becomes one of this schema where a run goes on in it: tables that it lacks are made."""

FOLD = 128
"""Samples in a full fold."""

LEVELS = (32, 128)
"""Bucket sizes, in samples, that are kept ready for zooming out."""

RUN = 1
"""Number of the only run of a file."""

metadata = MetaData()
_Kind = TypeEngine[Any] | type[TypeEngine[Any]]


def _table(name: str, keys: list[Column[Any]], *columns: Column[Any], since: int = 1) -> Table:
    """Make a table of files ``since`` a schema; its lines belong to a run, ``keys`` distinguish those of one."""
    run = Column("run", Integer, primary_key=True, autoincrement=False)
    return Table(name, metadata, run, *keys, *columns, info={"since": since})


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
logged = _table(
    "logged",
    [_key("metric", String(120)), _key("number", BigInteger)],
    _column("attempt", Integer),
    _column("sequence", BigInteger),
    _column("first", BigInteger),
    _column("last", BigInteger),
    _column("data", LargeBinary),
    since=4,
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
failure = _table(
    "failure",
    [_key("number", Integer)],
    _column("subject", Text),
    _column("reason", Text),
    _column("first_step", BigInteger, nullable=True),
    _column("last_step", BigInteger, nullable=True),
    _column("count", BigInteger),
    since=4,
)

tokens = MetaData()
"""Of a store of many runs: who may read and write it."""
token = Table(
    "token",
    tokens,
    Column("name", String(200), primary_key=True),
    Column("scope", String(20), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("created", String(40), nullable=False),
)


def holds(connection: Connection, table: Table) -> bool:
    """Return whether the open file is of a schema that has ``table``; until it is written again, it keeps its own."""
    number: int = connection.execute(select(version.c.schema)).scalar_one()
    return number >= int(table.info.get("since", 1))
