"""Samples that are new in a run since a cursor: the count of samples that its reader has seen."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from stabmon.series import Floats, Layout, Logged
from stabmon.store import schema
from stabmon.store.fold import pieces
from stabmon.store.logged import Placed, placed
from stabmon.store.one_run import OneRun


class New(NamedTuple):
    """Samples since a cursor: rows [S, width] float32; steps that go back mean that the run was resumed.

    logged: numbers logged between samples, by the sample that they come before; those that come before the next sample
        are among them once all samples are.
    """

    cursor: int
    steps: npt.NDArray[np.int64]
    times: npt.NDArray[np.float64]
    """Seconds since the epoch [S]."""
    rows: Floats
    logged: tuple[Placed, ...] = ()

    def before(self, sample: int) -> tuple[Logged, ...]:
        """Return what was logged before ``sample`` of these, from 0; before the next one where there are as many."""
        at = self.cursor - len(self.steps) + sample
        return next((one.values for one in self.logged if one.sequence == at), ())

    def part(self, start: int, stop: int) -> "New":
        """Return the samples from ``start`` to before ``stop``, from 0, with what was logged before each of them.

        The sample after the last of these is none yet: its part has what was logged since, and no sample.
        """
        first = self.cursor - len(self.steps)
        own = tuple(one for one in self.logged if first + start <= one.sequence < first + stop)
        chosen = slice(start, stop)
        return New(min(first + stop, self.cursor), self.steps[chosen], self.times[chosen], self.rows[chosen], own)


def after(run: OneRun, cursor: int, limit: int | None, layout: Layout) -> New:
    """Return the samples from ``cursor`` on, at most ``limit``, what was logged between, and the cursor after them."""
    tail = schema.tail.c
    query = select(tail.sequence, tail.step, tail.time, tail.data).where(tail.sequence >= cursor)
    lines = run.read(query.order_by(tail.sequence)).all()
    steps, times, rows = _folded(run, cursor, lines[0].sequence if lines else None, limit, layout)
    steps += [line.step for line in lines]
    times += [line.time for line in lines]
    rows += [np.frombuffer(line.data, "<f4") for line in lines]
    steps, times, rows = steps[:limit], times[:limit], rows[:limit]
    stacked = np.stack(rows) if rows else np.empty((0, layout.width), np.float32)
    end = cursor + len(rows)
    whole = limit is None or len(rows) < limit
    logged = tuple(one for one in placed(run, cursor, end) if one.sequence < end or whole)
    whole_rows = stacked.astype(np.float32, copy=False)
    return New(end, np.array(steps, dtype=np.int64), np.array(times, dtype=np.float64), whole_rows, logged)


def _folded(
    run: OneRun, cursor: int, end: int | None, limit: int | None, layout: Layout
) -> tuple[list[int], list[float], list[Floats]]:
    """Return steps, times and rows from ``cursor`` on that were folded; none when the tail begins at the cursor.

    Whole folds are read until there are at least ``limit`` rows.
    """
    if cursor == end:
        return [], [], []
    fold, chunk = schema.fold.c, schema.chunk.c
    about = select(fold.sequence, fold.samples, fold.steps, fold.times).where(fold.sequence > cursor - schema.FOLD)
    order = pieces(layout)
    steps: list[int] = []
    times: list[float] = []
    rows: list[Floats] = []
    for sequence, samples, own_steps, own_times in run.read(about.order_by(fold.sequence)).all():
        if sequence + samples <= cursor:
            continue
        whole = np.empty((samples, layout.width), np.float32)
        query = select(chunk.metric, chunk.data).where(chunk.sequence == sequence)
        for metric, data in run.read(query.where(chunk.metric.in_(order))):
            whole[:, order[metric]] = np.frombuffer(data, "<f4").reshape(-1, samples).T
        skip = max(cursor - sequence, 0)
        steps += np.frombuffer(own_steps, "<i8")[skip:].tolist()
        times += np.frombuffer(own_times, "<f8")[skip:].tolist()
        rows += list(whole[skip:])
        if limit is not None and len(rows) >= limit:
            break
    return steps, times, rows
