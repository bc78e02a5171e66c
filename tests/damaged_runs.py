"""Runs that are damaged, foreign or made to harm their reader, each made from a healthy one; every reader tries all."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from stabmon.findings import Finding
from stabmon.records import Evidence, Heartbeat, ModelMap, RunInfo, RunState, Severity
from stabmon.series import Layout
from stabmon.store import FILE, RunWriter

LAYOUT = Layout.of([("loss", None, 1), ("row_mass", "layers.0", 4)])
INFO = RunInfo(name="lm", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=1))


def healthy(folder: Path, samples: int = 140, close: bool = True) -> RunWriter:
    """Write a run of one fold, a tail and one finding."""
    writer = RunWriter.create(folder, INFO, LAYOUT)
    for step in range(samples):
        writer.sample(step, 1e9 + step, np.full(LAYOUT.width, step, np.float32))
    found = Finding(
        code="NUM001", name="non-finite", severity=Severity.INFO, evidence=Evidence.MEASURED, layer=None, head=None,
        metric="loss", value=1.0, limit=1.0, message="m", cause="c", opened=0, peak=0, last=0,
    )  # fmt: skip
    writer.findings([found])
    if close:
        writer.heartbeat(Heartbeat(state=RunState.RUNNING, step=samples - 1, time=1e9))
        writer.close(RunState.FINISHED)
    return writer


def sql(*statements: str, values: tuple[object, ...] = ()) -> Callable[[Path], None]:
    """Return what runs statements on the file of a run."""

    def damage(folder: Path) -> None:
        with closing(sqlite3.connect(folder / FILE)) as connection, connection:
            for statement in statements:
                connection.execute(statement, values if "?" in statement else ())

    return damage


def _view(table: str, columns: str) -> Callable[[Path], None]:
    """Return what puts an endless view in the place of a table."""
    endless = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {columns} FROM n"
    return sql(f"DROP TABLE {table}", f"CREATE VIEW {table} AS {endless}")


def _without_key(folder: Path) -> None:
    columns = "run INTEGER, metric TEXT, sequence BIGINT, data BLOB"
    sql("DROP TABLE chunk", f"CREATE TABLE chunk ({columns})")(folder)


def _in_place(make: Callable[[Path], object], end: str = "") -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / f"{FILE}{end}"
        file.unlink(missing_ok=True)
        make(file)

    return damage


def _cut_file(folder: Path) -> None:
    file = folder / FILE
    os.truncate(file, file.stat().st_size // 2)


def _log_emptied(folder: Path) -> None:
    """Leave a killed writer's file without the log that held all it had written."""
    file = folder / FILE
    file.unlink()
    writer = healthy(folder, 3, close=False)
    main = file.read_bytes()
    writer.close(RunState.FAILED)
    file.write_bytes(main)
    file.with_name(f"{FILE}-wal").touch()


def _garbage(file: Path) -> None:
    file.write_bytes(os.urandom(100_000))


def _counted(number: int) -> str:
    return f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {number})"


def _findings(number: int) -> Callable[[Path], None]:
    counted = _counted(number)
    insert = (
        f"INSERT INTO finding SELECT 1, 'X', x, 0, 'info', NULL, (SELECT document FROM finding LIMIT 1) FROM ({counted}"
        " SELECT x FROM n)"
    )
    return sql(insert)


def _layout(columns: str) -> Callable[[Path], None]:
    return sql("UPDATE run SET layout = ?", values=(f'{{"columns": [{columns}]}}',))


_COLUMN = '{"metric": "loss", "layer": null, "start": %d, "size": %d}'

_LOGGED = "INSERT INTO logged SELECT 1, 'loss', 0, 1, 0, 0, 0, %s"

DAMAGED: dict[str, Callable[[Path], None]] = {
    **{f"no table {name}": sql(f"DROP TABLE {name}") for name in ("run", "attempt", "tail", "fold", "chunk", "level")},
    **{f"no table {name}": sql(f"DROP TABLE {name}") for name in ("heartbeat", "finding")},
    "no table stabmon": sql("DROP TABLE stabmon"),
    "extra table": sql("CREATE TABLE other (x)"),
    "trigger": sql("CREATE TRIGGER t AFTER UPDATE ON heartbeat BEGIN DELETE FROM tail; END"),
    "own index": sql("CREATE INDEX i ON tail (abs(step))"),
    "view that never ends": _view("finding", "1 AS run, 'X' AS code, '' AS layer, x AS opened, '' AS severity"),
    "view in place of the version": _view("stabmon", "x AS schema"),
    "view of the version beside it": sql("CREATE VIEW v AS SELECT * FROM stabmon"),
    "computed column": sql("ALTER TABLE heartbeat ADD COLUMN x AS (hex(zeroblob(100000000)))"),
    "virtual table": sql("DROP TABLE tail", "CREATE VIRTUAL TABLE tail USING fts5(run, sequence)"),
    "no primary key": _without_key,
    "no heartbeat": sql("DELETE FROM heartbeat"),
    "two heartbeats": sql("INSERT INTO heartbeat SELECT 2, state, step, time, samples, 0, 0, 1 FROM heartbeat"),
    "heartbeat of odd state": sql("UPDATE heartbeat SET state = 'gone'"),
    "heartbeat that counts more samples": sql("UPDATE heartbeat SET samples = 150"),
    "no run": sql("DELETE FROM run"),
    "run without a date": sql('UPDATE run SET info = \'{"name": "x"}\''),
    "deep JSON": sql("UPDATE run SET info = ?", values=("[" * 100_000,)),
    "long description": sql("UPDATE run SET info = info || hex(zeroblob(9000000))"),
    "text that is no text": sql("UPDATE run SET info = CAST(x'ff00fe' AS TEXT)"),
    "cut chunk": sql("UPDATE chunk SET data = substr(data, 1, 100) WHERE metric = 'row_mass'"),
    "chunk as text": sql("UPDATE chunk SET data = CAST(data AS TEXT)"),
    "no chunk": sql("DELETE FROM chunk WHERE metric = 'loss'"),
    "huge chunk": sql("UPDATE chunk SET data = zeroblob(200000000) WHERE metric = 'loss'"),
    "cut level": sql("UPDATE level SET data = substr(data, 2) WHERE size = 32"),
    "no level": sql("DELETE FROM level WHERE size = 128"),
    "cut steps": sql("UPDATE fold SET steps = substr(steps, 1, 1020)"),
    "steps that go back": sql("UPDATE fold SET last = 5, steps = zeroblob(1024)"),
    "fold of terabytes": sql("UPDATE fold SET samples = 1000000000000"),
    "no fold": sql("DELETE FROM fold"),
    "fold of no attempt": sql("UPDATE fold SET attempt = 9"),
    "wrong width": sql("UPDATE tail SET data = x'00000000'"),
    "no row": sql("UPDATE tail SET data = 'text'"),
    "step that is NaN": sql("UPDATE tail SET step = 'NaN' WHERE sequence = 130"),
    "time that is text": sql("UPDATE tail SET time = 'soon' WHERE sequence = 130"),
    "missing sample": sql("DELETE FROM tail WHERE sequence = 130"),
    "no attempt": sql("DELETE FROM attempt"),
    "cut record of a logged number": sql(_LOGGED % "x'0000'"),
    "100,000 failures": sql(
        f"INSERT INTO failure SELECT 1, x, 'a', 'b', NULL, NULL, 1 FROM ({_counted(100_000)} SELECT x FROM n)"
    ),
    "failure that counts text": sql("INSERT INTO failure VALUES (1, 0, 'a', 'b', NULL, NULL, 'often')"),
    "logged numbers of no attempt": sql(_LOGGED % "zeroblob(20)", "UPDATE logged SET attempt = 9"),
    "logged numbers after the end": sql(_LOGGED % "zeroblob(20)", "UPDATE logged SET sequence = 9999"),
    "layout of terabytes": _layout(_COLUMN % (0, 10**12)),
    "layout with a gap": _layout(_COLUMN % (5, 4)),
    "layout of negative size": _layout(_COLUMN % (0, -4)),
    "layout of another width": _layout(_COLUMN % (0, 9)),
    "layout of one metric twice": _layout(", ".join([_COLUMN % (0, 1), _COLUMN % (1, 4)])),
    "finding with broken JSON": sql("UPDATE finding SET document = '{\"code\": '"),
    "finding of another kind": sql("UPDATE finding SET document = '{}'"),
    "100,000 findings": _findings(100_000),
    "newer schema": sql("UPDATE stabmon SET schema = 1000"),
    "no version": sql("DELETE FROM stabmon"),
    "foreign SQLite": _in_place(lambda file: sql("CREATE TABLE other (x)")(file.parent)),
    "garbage": _in_place(_garbage),
    "empty file": _in_place(Path.touch),
    "cut file": _cut_file,
    "log emptied": _log_emptied,
    "folder in place of the file": _in_place(Path.mkdir),
    "pipe in place of the file": _in_place(os.mkfifo),
    "folder in place of the log": _in_place(Path.mkdir, "-wal"),
    "pipe in place of the log": _in_place(os.mkfifo, "-wal"),
    "pipe in place of the log's index": _in_place(os.mkfifo, "-shm"),
}
"""Ways to damage a healthy run, by name."""

SAYS = "damaged|not a stabmon run|upgrade stabmon|no SQLite file"
"""One of these is in what every reader says of each of them."""


def make(folder: Path, name: str) -> Path:
    """Make the damaged run ``name`` at ``folder``."""
    healthy(folder)
    DAMAGED[name](folder)
    return folder
