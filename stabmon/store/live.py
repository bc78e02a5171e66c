"""Samples that are new in a run since a cursor: the count of samples that its reader has seen."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from stabmon.series import Floats, Layout, Logged
from stabmon.store import schema
from stabmon.store.fold import pieces
from stabmon.store.logged import Placed, placed


class New(NamedTuple):
    """Samples since a cursor: rows [S, width] float32; steps that go back mean that the run was resumed.

    logged: numbers logged between samples, by the sample that they come before; those that come before the next sample
        are among them once all samples are.
    """

    cursor: int
    steps: npt.NDArray[np.int64]
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
        return New(min(first + stop, self.cursor), self.steps[start:stop], self.rows[start:stop], own)


def after(connection: Connection, cursor: int, limit: int | None, layout: Layout) -> New:
    """Return the samples from ``cursor`` on, at most ``limit``, what was logged between, and the cursor after them."""
    tail = schema.tail.c
    query = select(tail.sequence, tail.step, tail.data).where(tail.run == schema.RUN, tail.sequence >= cursor)
    lines = connection.execute(query.order_by(tail.sequence)).all()
    steps, rows = _folded(connection, cursor, lines[0].sequence if lines else None, limit, layout)
    steps += [line.step for line in lines]
    rows += [np.frombuffer(line.data, "<f4") for line in lines]
    steps, rows = steps[:limit], rows[:limit]
    stacked = np.stack(rows) if rows else np.empty((0, layout.width), np.float32)
    end = cursor + len(rows)
    whole = limit is None or len(rows) < limit
    logged = tuple(one for one in placed(connection, cursor, end) if one.sequence < end or whole)
    return New(end, np.array(steps, dtype=np.int64), stacked.astype(np.float32, copy=False), logged)


def _folded(
    connection: Connection, cursor: int, end: int | None, limit: int | None, layout: Layout
) -> tuple[list[int], list[Floats]]:
    """Return steps and rows from ``cursor`` on that were folded already; none when the tail begins at the cursor.

    Whole folds are read until there are at least ``limit`` rows.
    """
    if cursor == end:
        return [], []
    fold, chunk = schema.fold.c, schema.chunk.c
    about = (
        select(fold.sequence, fold.samples, fold.steps)
        .where(fold.run == schema.RUN, fold.sequence > cursor - schema.FOLD)
        .order_by(fold.sequence)
    )
    order = pieces(layout)
    steps: list[int] = []
    rows: list[Floats] = []
    for sequence, samples, own in connection.execute(about).all():
        if sequence + samples <= cursor:
            continue
        whole = np.empty((samples, layout.width), np.float32)
        query = select(chunk.metric, chunk.data).where(chunk.run == schema.RUN, chunk.sequence == sequence)
        for metric, data in connection.execute(query.where(chunk.metric.in_(order))):
            whole[:, order[metric]] = np.frombuffer(data, "<f4").reshape(-1, samples).T
        skip = max(cursor - sequence, 0)
        steps += np.frombuffer(own, "<i8")[skip:].tolist()
        rows += list(whole[skip:])
        if limit is not None and len(rows) >= limit:
            break
    return steps, rows
