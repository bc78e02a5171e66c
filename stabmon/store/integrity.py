"""Integrity checks of a run file: its tables before anything is read from them, its contents before anything is shown.

A run file may come from anywhere and may be cut, edited or made to harm its reader. Every reader opens it through these
checks, so a damaged run is called damaged everywhere, with the same reason. Sizes are checked before memory is taken.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection

from stabmon.errors import StoreError
from stabmon.series import Layout
from stabmon.store import schema
from stabmon.store.levels import PACKED
from stabmon.store.logged import RECORD

WIDEST = 1 << 20
"""Most columns of a row; 128 layers of 128 heads with every metric take a quarter of it."""
LONGEST = 1 << 24
"""Most bytes of a run's description, and of its layout."""
MOST_FINDINGS = 10_000
LOGGED_BYTES = 1 << 29
"""Most bytes of all numbers that were logged between samples: 25 million."""
FINDINGS_BYTES = 1 << 26
"""Most bytes of all findings together."""


class NothingYet(StoreError):
    """A file without any table: its writer has not come so far, or never will."""


def damaged(file: Path, reason: str) -> StoreError:
    """Return the error that every reader raises for a run that is not whole."""
    return StoreError(f"{file} is damaged ({reason}): restore it from a copy, or try `sqlite3 {file.name} .recover`")


def check_tables(connection: Connection, file: Path) -> None:
    """Refuse a file whose tables are not exactly those that stabmon writes: a view or a trigger runs code of its own.

    Raises:
        StoreError: the file is foreign, written by a newer stabmon, or damaged.
    """
    found = {
        name: (kind, root, own)
        for kind, name, root, own in connection.exec_driver_sql(
            "SELECT type, name, rootpage, sql IS NOT NULL FROM sqlite_master LIMIT 100"
        )
    }
    if schema.version.name not in found:
        raise (StoreError if found else NothingYet)(
            f"{file} is not a stabmon run: it has no table {schema.version.name!r}; "
            "expected a file that stabmon.watch wrote"
        )
    _plain(connection, file, schema.version.name, found)
    number = _version(connection, file)
    tables = {t.name: t for t in schema.metadata.tables.values() if t.info.get("since", 1) <= number}
    for name, (kind, _, own) in found.items():
        internal = name.startswith("sqlite_") and not (kind == "index" and own)
        if name not in tables and not internal:
            raise damaged(file, f"it holds the {kind} {name!r}, which stabmon does not write")
    for name, table in tables.items():
        if name not in found:
            raise damaged(file, f"it has no table {name!r}")
        columns = _plain(connection, file, name, found)
        expected = [(column.name, bool(column.primary_key)) for column in table.columns]
        if columns != expected:
            got = ", ".join(column for column, _ in columns)
            wanted = ", ".join(column for column, _ in expected)
            raise damaged(file, f"its table {name!r} has the columns {got}; expected {wanted} and their primary key")


def _plain(connection: Connection, file: Path, name: str, found: dict[str, tuple[str, int, bool]]) -> list[Any]:
    """Return (name, in the primary key) of the columns of a table that is no view, virtual or computed."""
    kind, root, _ = found[name]
    columns = connection.exec_driver_sql(f'PRAGMA table_xinfo("{name}")').all()
    if kind != "table" or not root or any(column.hidden for column in columns):
        what = kind if kind != "table" else "computed table"
        raise damaged(file, f"it holds the {what} {name!r} in place of a table")
    return [(column.name, bool(column.pk)) for column in columns]


def _version(connection: Connection, file: Path) -> int:
    numbers = connection.exec_driver_sql("SELECT schema FROM stabmon LIMIT 2").scalars().all()
    if len(numbers) != 1 or not isinstance(numbers[0], int):
        raise damaged(file, f"its table 'stabmon' must hold one number, got {list(numbers)!r:.80}")
    if numbers[0] > schema.SCHEMA:
        raise StoreError(
            f"{file.name} was written by schema {numbers[0]}, this stabmon knows up to {schema.SCHEMA}: upgrade stabmon"
            f" (to read {file})"
        )
    return numbers[0]


def check_lines(connection: Connection, file: Path) -> None:
    """Refuse a file whose run and heartbeat are not one line each, whose texts are too long, or with lines of no run.

    Raises:
        StoreError: it is damaged.
    """
    for name, table in schema.metadata.tables.items():
        if not schema.holds(connection, table):
            continue
        if "run" in table.columns and name not in ("chunk", "level"):  # those two are read by their run's number only
            stray = connection.exec_driver_sql(f'SELECT 1 FROM "{name}" WHERE run IS NOT {schema.RUN} LIMIT 1').all()
            if stray:
                raise damaged(file, f"its table {name!r} holds a line that belongs to no run")
    for name in ("run", "heartbeat"):
        lines = len(connection.exec_driver_sql(f'SELECT 1 FROM "{name}" LIMIT 2').all())
        if lines != 1:
            raise damaged(file, f"its table {name!r} must hold one line, it holds {'none' if not lines else 'more'}")
    lengths = _bytes("info"), _bytes("layout")
    (longest,) = connection.exec_driver_sql(f"SELECT max({lengths[0]}, {lengths[1]}) FROM run").one()
    if longest > LONGEST:
        raise damaged(file, f"its description takes {longest} bytes, more than {LONGEST}")
    count, size = connection.exec_driver_sql(f"SELECT count(*), total({_bytes('document')}) FROM finding").one()
    if count > MOST_FINDINGS or size > FINDINGS_BYTES:
        limit = f"more than {MOST_FINDINGS} or {FINDINGS_BYTES} bytes"
        raise damaged(file, f"it holds {count} findings of {size:.0f} bytes, {limit}")
    _check_failures(connection, file)


def _check_failures(connection: Connection, file: Path) -> None:
    if schema.holds(connection, schema.failure):
        length = f"{_bytes('subject')} + {_bytes('reason')}"
        count, size = connection.exec_driver_sql(f"SELECT count(*), total({length}) FROM failure").one()
        if count > MOST_FINDINGS or size > FINDINGS_BYTES:
            limit = f"more than {MOST_FINDINGS} or {FINDINGS_BYTES} bytes"
            raise damaged(file, f"it holds {count} failures of {size:.0f} bytes, {limit}")


def _bytes(column: str) -> str:
    return f"length(CAST({column} AS BLOB))"


def layout_fault(layout: Layout) -> str | None:
    """Return what is wrong with a layout whose columns do not lie one after another, or that is wider than any's."""
    width = 0
    for column in layout.columns:
        if column.start != width or column.size < 1:
            return f"its layout puts {column.metric!r:.80} at {column.start}, expected {width}"
        width += column.size
        if width > WIDEST:
            return f"its layout has {width} columns or more, a row has at most {WIDEST}"
    if len({(column.metric, column.layer) for column in layout.columns}) != len(layout.columns):
        return "its layout names the same columns twice"
    return None


def check_layout(layout: Layout, file: Path) -> None:
    """Refuse a layout that has a fault.

    Raises:
        StoreError: it is damaged.
    """
    fault = layout_fault(layout)
    if fault is not None:
        raise damaged(file, fault)


def check_samples(connection: Connection, file: Path, layout: Layout, since: int = 0) -> int:
    """Check that all samples are there and of the layout's size, as far as not known already; read no series.

    since: sequence before which every fold was found whole.

    Returns:
        the sequence up to which every fold is whole.

    Raises:
        StoreError: it is damaged.
    """
    attempts = {line.number: line.first for line in connection.exec_driver_sql("SELECT number, first FROM attempt")}
    if not all(isinstance(number, int) for attempt in attempts.items() for number in attempt):
        raise damaged(file, "an attempt has no number or no first step")
    folds, folded = _folds(connection, file, attempts, since)
    if folds:
        _blobs(connection, file, layout, folds, since)
    end = _tail(connection, file, attempts, layout.width, folded)
    if schema.holds(connection, schema.logged):
        _logged(connection, file, end)
    samples = connection.exec_driver_sql("SELECT samples FROM heartbeat").scalar_one()
    if samples != end:
        raise damaged(file, f"its heartbeat counts {samples} samples, {end} are there")
    return folded


def _folds(connection: Connection, file: Path, attempts: Iterable[int], since: int) -> tuple[int, int]:
    """Return the number of folds from ``since`` on and the sequence after the last."""
    query = (
        "SELECT sequence, attempt, samples, first, last, steps, typeof(steps), length(times), typeof(times)"
        " FROM fold WHERE sequence >= ? OR typeof(sequence) != 'integer' ORDER BY sequence"
    )
    count, end = 0, since
    for line in connection.exec_driver_sql(query, (since,)):
        sequence, attempt, samples, first, last, steps, *kinds = line
        where = f"the samples from {sequence!r:.40}"
        if sequence != end or not isinstance(samples, int) or not 1 <= samples <= schema.FOLD:
            raise damaged(file, f"{where} are not where they belong, expected {end}")
        if kinds != ["blob", 8 * samples, "blob"] or len(steps) != 8 * samples:
            raise damaged(file, f"{where} have steps or times of another length than {samples}")
        own = np.frombuffer(steps, "<i8")
        if (first, last) != (own[0], own[-1]) or (np.diff(own) <= 0).any() or attempt not in attempts:
            raise damaged(file, f"{where} have steps that do not ascend, or belong to no attempt")
        count, end = count + 1, end + samples
    return count, end


def _blobs(connection: Connection, file: Path, layout: Layout, folds: int, since: int) -> None:
    """Check that every metric has a blob of the right length in each fold from ``since`` on, and for every level."""
    widths = {metric: sum(column.size for column in layout.of_metric(metric)) for metric in layout.metrics}
    for table, size, itemsize in [("chunk", 1, 4), *(("level", level, PACKED.itemsize) for level in schema.LEVELS)]:
        of_size = f"AND size = {size}" if table == "level" else ""
        share = f"length(data) * 1.0 / ((samples + {size - 1}) / {size})"
        query = (
            f"SELECT metric, count(*), min({share}), max({share}), total(typeof(data) != 'blob') FROM {table}"
            f" JOIN fold ON fold.run = {table}.run AND fold.sequence = {table}.sequence"
            f" WHERE {table}.run = {schema.RUN} AND {table}.sequence >= ?"
            f" AND metric IN (SELECT value FROM json_each(?)) {of_size} GROUP BY metric"
        )
        found = {name: tuple(rest) for name, *rest in connection.exec_driver_sql(query, (since, json.dumps([*widths])))}
        for metric, width in widths.items():
            length = width * itemsize
            if found.get(metric) != (folds, length, length, 0):
                raise damaged(file, f"its values of {metric!r:.80} are missing or of another length in table {table!r}")


def _tail(connection: Connection, file: Path, attempts: Iterable[int], width: int, end: int) -> int:
    """Return the sequence after the newest sample."""
    lines = _lines(connection)
    before: int | None = None
    for sequence, attempt, step, time, length, kind in lines:
        where = f"sample {sequence!r:.40}"
        if sequence != end or attempt not in attempts:
            raise damaged(file, f"{where} is not where it belongs, expected {end}, or belongs to no attempt")
        if not isinstance(step, int) or not isinstance(time, int | float) or (before is not None and step <= before):
            raise damaged(file, f"{where} has the step {step!r:.40} at time {time!r:.40}, expected numbers that ascend")
        if kind != "blob" or length != 4 * width:
            raise damaged(file, f"{where} has a row of {length} bytes of {kind}, its layout says {4 * width}")
        before, end = step, end + 1
    return end


def _logged(connection: Connection, file: Path, end: int) -> None:
    """Check that what was logged between samples has whole records and belongs to an attempt and between samples."""
    size = RECORD.itemsize
    whole = f"typeof(data) = 'blob' AND length(data) > 0 AND length(data) % {size} = 0"
    place = f"typeof(sequence) = 'integer' AND sequence BETWEEN 0 AND {end} AND attempt IN (SELECT number FROM attempt)"
    query = f"SELECT total(length(data)), total(NOT ({whole})), total(NOT ({place})) FROM logged"
    length, cut, lost = connection.exec_driver_sql(query).one()
    if cut or lost or length > LOGGED_BYTES:
        what = "more of them than a run has" if not (cut or lost) else "cut records" if cut else "a place that is none"
        raise damaged(file, f"the numbers that were logged between samples have {what}")


def _lines(connection: Connection) -> Iterator[Any]:
    query = "SELECT sequence, attempt, step, time, length(data), typeof(data) FROM tail ORDER BY sequence LIMIT ?"
    return iter(connection.exec_driver_sql(query, (schema.FOLD + 1,)))
