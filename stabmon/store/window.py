"""From a range of steps to rows: raw values where they fit, stored levels where they do not.

A read touches the blobs of one metric only. Full folds inside the range come from the coarsest level whose buckets are
not larger than those asked for; folds cut by the range or by a later attempt, and the tail, come raw.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, LargeBinary, Table, and_, func, select

from stabmon.series import Floats, Series
from stabmon.store import schema
from stabmon.store.column_selection import ColumnSelection
from stabmon.store.levels import PACKED, Buckets, merged, of_size, single, unpack
from stabmon.store.logged import of_metric, with_logged
from stabmon.store.one_run import OneRun

_FAR = np.iinfo(np.int64).max


class Window(NamedTuple):
    """The steps asked for: from ``start`` to before ``stop``, as of ``attempt``, in at most ``max_points`` rows."""

    start: int | None = None
    stop: int | None = None
    attempt: int | None = None
    max_points: int | None = None


class _Part(NamedTuple):
    """A fold, or the whole tail, as far as it lies in the window."""

    sequence: int
    samples: int
    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    keep: npt.NDArray[np.bool_]
    rows: Floats | None
    """The tail's values; None for a fold, whose values are read later."""

    @property
    def whole(self) -> bool:
        return self.rows is None and bool(self.keep.all())


def read_window(run: OneRun, chosen: ColumnSelection, window: Window) -> Series:
    """Read ``chosen`` of the steps in ``window``."""
    return _read(run, chosen, window, _limits(run, window))


def read_own(run: OneRun, chosen: ColumnSelection, window: Window) -> Series:
    """Read a number that the training logs itself: at each step at which it was logged, sampled or not."""
    limits = _limits(run, window)
    every = _read(run, chosen, window._replace(max_points=None), limits)
    series = with_logged(every, of_metric(run, chosen.metric, window.start, limits))
    size = _bucket(len(series.steps), window)
    if size == 1:
        return series
    low, mean, high, _ = of_size(series.values, size)
    times = None if series.times is None else series.times[::size]
    return series._replace(steps=series.steps[::size], values=mean, low=low, high=high, times=times)


def _bucket(samples: int, window: Window) -> int:
    """Return the samples of a row, so that there are no more rows than were asked for."""
    return -(-samples // window.max_points) if window.max_points and samples > window.max_points else 1


def _read(run: OneRun, chosen: ColumnSelection, window: Window, limits: dict[int, int]) -> Series:
    parts = _folds(run, window, limits)
    tail, cursor = _tail(run, chosen, window, limits)
    parts += tail
    samples = sum(int(part.keep.sum()) for part in parts)
    size = _bucket(samples, window)
    unit = max((level for level in schema.LEVELS if level <= size), default=1)
    stored = _stored(run, chosen, unit, [part for part in parts if part.rows is None])
    if unit > 1:
        return _zoomed([_entries(part, unit, stored, chosen) for part in parts], size, cursor, chosen)
    steps = np.concatenate([part.steps[part.keep] for part in parts] or [np.empty(0, np.int64)])
    times = np.concatenate([part.times[part.keep] for part in parts] or [np.empty(0)])
    nothing = np.empty((0, len(chosen.columns)), np.float32)
    values = chosen.shaped(np.concatenate([_rows(part, stored, chosen) for part in parts] or [nothing]))
    if size == 1:
        return Series(chosen.metric, chosen.shown, steps, values, cursor=cursor, times=times)
    low, mean, high, _ = of_size(values, size)
    return Series(chosen.metric, chosen.shown, steps[::size], mean, low, high, cursor, times[::size])


def _limits(run: OneRun, window: Window) -> dict[int, int]:
    """Return for each attempt the step at which a later one took over, no further than the window's stop."""
    attempt = schema.attempt.c
    query = select(attempt.number, attempt.first).order_by(attempt.number.desc())
    limits, limit = {}, _FAR if window.stop is None else window.stop
    for number, first in run.read(query):
        if window.attempt is None or number <= window.attempt:
            limits[number] = limit
            limit = min(limit, first)
    return limits


def _kept(steps: npt.NDArray[np.int64], start: int | None, limit: int) -> npt.NDArray[np.bool_]:
    return (steps < limit) if start is None else (steps >= start) & (steps < limit)


def _folds(run: OneRun, window: Window, limits: dict[int, int]) -> list[_Part]:
    fold = schema.fold.c
    query = select(fold.sequence, fold.attempt, fold.samples, fold.steps, fold.times).order_by(fold.sequence)
    if window.start is not None:
        query = query.where(fold.last >= window.start)
    if window.stop is not None:
        query = query.where(fold.first < window.stop)
    parts = []
    for sequence, attempt, samples, steps, times in run.read(query):
        own = np.frombuffer(steps, "<i8")
        keep = _kept(own, window.start, limits.get(attempt, -1))
        if keep.any():
            parts.append(_Part(sequence, samples, own, np.frombuffer(times, "<f8"), keep, None))
    return parts


def _tail(run: OneRun, chosen: ColumnSelection, window: Window, limits: dict[int, int]) -> tuple[list[_Part], int]:
    """Return the tail's part, if it has any, and the cursor after the newest sample."""
    tail, fold = schema.tail.c, schema.fold.c
    end = run.read(select(func.max(fold.sequence + fold.samples))).scalar_one() or 0
    lines = run.read(select(tail.sequence, tail.attempt, tail.step, tail.time, tail.data).order_by(tail.sequence)).all()
    if not lines:
        return [], end
    steps = np.array([line.step for line in lines], dtype=np.int64)
    times = np.array([line.time for line in lines])
    keep = _kept(steps, window.start, limits.get(lines[0].attempt, -1))
    rows = np.stack([np.frombuffer(line.data, "<f4")[chosen.columns] for line in lines])
    part = _Part(lines[0].sequence, len(lines), steps, times, keep, rows)
    return ([part] if keep.any() else []), lines[-1].sequence + 1


def _stored(run: OneRun, chosen: ColumnSelection, unit: int, folds: list[_Part]) -> dict[int, bytes]:
    """Return the blob of each fold: its level of that unit, or its raw values for unit 1 and for folds cut in two."""
    raw = [part.sequence for part in folds if unit == 1 or not part.whole]
    levels = [part.sequence for part in folds if unit > 1 and part.whole]
    found = _blobs(run, schema.chunk, chosen, raw, 4, 1)
    if levels:
        of_unit = schema.level.c.size == unit
        found |= _blobs(run, schema.level, chosen, levels, PACKED.itemsize, unit, of_unit)
    return found


def _blobs(
    run: OneRun,
    table: Table,
    chosen: ColumnSelection,
    sequences: list[int],
    itemsize: int,
    unit: int,
    *conditions: ColumnElement[bool],
) -> dict[int, bytes]:
    """Read of each fold's blob [columns, ceil(samples / unit)] only the bytes of the chosen columns."""
    if not sequences:
        return {}
    fold = schema.fold
    column: ColumnElement[Any] = itemsize * ((fold.c.samples + unit - 1) // unit)
    data = func.substr(table.c.data, 1 + chosen.first * column, len(chosen.columns) * column, type_=LargeBinary)
    query = (
        select(table.c.sequence, data)
        .join_from(table, fold, and_(fold.c.run == table.c.run, fold.c.sequence == table.c.sequence))
        .where(table.c.metric == chosen.metric, *conditions)
        .where(table.c.sequence.between(sequences[0], sequences[-1]))
    )
    wanted = set(sequences)
    return {sequence: blob for sequence, blob in run.read(query) if sequence in wanted}


def _rows(part: _Part, stored: dict[int, bytes], chosen: ColumnSelection) -> Floats:
    """Return the raw values [samples, columns] of ``part`` that lie in the window."""
    rows = part.rows
    if rows is None:
        rows = np.frombuffer(stored[part.sequence], "<f4").reshape(len(chosen.columns), part.samples).T
    return rows if part.keep.all() else rows[part.keep]


class _Entries(NamedTuple):
    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    samples: npt.NDArray[np.int64]
    buckets: Buckets


def _entries(part: _Part, unit: int, stored: dict[int, bytes], chosen: ColumnSelection) -> _Entries:
    """Return what of ``part`` lies in the window: a whole fold in buckets of ``unit`` samples, else single ones."""
    if not part.whole:
        values = chosen.shaped(np.ascontiguousarray(_rows(part, stored, chosen)))
        steps = part.steps[part.keep]
        return _Entries(steps, part.times[part.keep], np.ones(len(steps), np.int64), single(values))
    low, mean, high, measured = unpack(stored[part.sequence], len(chosen.columns))
    shaped = Buckets(chosen.shaped(low), chosen.shaped(mean), chosen.shaped(high), _layers(measured, chosen))
    starts = np.arange(0, part.samples, unit)
    return _Entries(part.steps[starts], part.times[starts], np.diff(starts, append=part.samples), shaped)


def _zoomed(entries: list[_Entries], size: int, cursor: int, chosen: ColumnSelection) -> Series:
    """Merge entries into buckets of about ``size`` samples: a bucket ends with the entry that fills it."""
    counts = np.concatenate([entry.samples for entry in entries])
    starts = np.flatnonzero(np.diff((np.cumsum(counts) - counts) // size, prepend=-1))
    planes = zip(*(entry.buckets for entry in entries), strict=True)
    low, mean, high, _ = merged(Buckets(*(np.concatenate(plane) for plane in planes)), starts)
    steps = np.concatenate([entry.steps for entry in entries])[starts]
    times = np.concatenate([entry.times for entry in entries])[starts]
    return Series(chosen.metric, chosen.shown, steps, mean, low, high, cursor, times)


def _layers(count: npt.NDArray[np.int64], chosen: ColumnSelection) -> npt.NDArray[np.int64]:
    """Return the samples of a bucket in which a column, or any head of a layer, was measured."""
    if not chosen.by_layer:
        return count
    starts = np.cumsum((0, *chosen.heads[:-1]))
    return np.maximum.reduceat(count, starts, axis=1)
