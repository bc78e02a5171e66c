"""Numbers that a training logged between samples: their lines in the file, and their place in a series.

A line holds what was handed over together of one metric, as records of step, time and value. Its ``sequence`` counts
the samples before it, so that it comes before the sample of that number; its attempt is that of its steps.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Row, select

from stabmon.metrics import is_logged
from stabmon.series import Floats, Layout, Logged, Series, is_missing
from stabmon.store import schema
from stabmon.store.one_run import OneRun

RECORD = np.dtype([("step", "<i8"), ("time", "<f8"), ("value", "<f4")])
"""A logged number in a line's data."""


class Placed(NamedTuple):
    """Logged numbers that belong right before the sample number ``sequence``."""

    sequence: int
    values: tuple[Logged, ...]


def lines_of(values: Sequence[Logged], number: int, sequence: int, attempt: int) -> list[dict[str, Any]]:
    """Return the lines of ``values``, in the order of their steps, numbered from ``number`` on."""
    lines = []
    by_metric = groupby(sorted(values, key=lambda one: one.metric), key=lambda one: one.metric)
    for at, (metric, own) in enumerate(by_metric, number):
        records = np.array([(one.step, one.time, one.value) for one in own], dtype=RECORD)
        about = {"metric": metric, "number": at, "sequence": sequence, "attempt": attempt}
        steps = {"first": int(records["step"][0]), "last": int(records["step"][-1])}
        lines.append({**about, **steps, "data": records.tobytes()})
    return lines


def ascending(values: Sequence[Logged]) -> list[Sequence[Logged]]:
    """Cut logged numbers where their steps go back, as they do where a run was resumed."""
    cuts = [at for at in range(1, len(values)) if values[at].step < values[at - 1].step]
    return [values[start:end] for start, end in pairwise([0, *cuts, len(values)]) if values]


def count_at(run: OneRun, sequence: int) -> int:
    """Return how many numbers were logged right before the sample ``sequence``."""
    lines = run.read(select(schema.logged.c.data).where(schema.logged.c.sequence == sequence)).scalars()
    return sum(len(data) for data in lines) // RECORD.itemsize


def placed(run: OneRun, start: int, end: int) -> list[Placed]:
    """Return what was logged before the samples ``start`` to ``end``, ``end`` included, by their sequence."""
    if not schema.holds(run.connection, schema.logged):
        return []
    logged = schema.logged.c
    query = select(schema.logged).where(logged.sequence.between(start, end))
    lines = run.read(query.order_by(logged.sequence, logged.number)).all()
    return [Placed(at, tuple(_values(own))) for at, own in groupby(lines, key=lambda line: int(line.sequence))]


def _values(lines: Iterator[Row[Any]]) -> Iterator[Logged]:
    for line in lines:
        for step, time, value in np.frombuffer(line.data, RECORD).tolist():
            yield Logged(step, time, line.metric, value)


def of_metric(run: OneRun, metric: str, start: int | None, limits: dict[int, int]) -> list[Logged]:
    """Return what was logged of ``metric`` from step ``start`` on.

    limits: by attempt, the step at which a later one took over.
    """
    if not schema.holds(run.connection, schema.logged):
        return []
    logged = schema.logged.c
    query = select(schema.logged).where(logged.metric == metric).order_by(logged.number)
    if start is not None:
        query = query.where(logged.last >= start)
    least = -1 if start is None else start
    lines = run.read(query).all()
    return [one for line in lines for one in _values(iter([line])) if least <= one.step < limits.get(line.attempt, -1)]


def is_own(layout: Layout, metric: str) -> bool:
    """Return whether ``metric`` is a number of the training's own: it has a row only where it was logged."""
    return is_logged(metric) and layout.layers(metric) == [None]


def with_logged(series: Series, values: Sequence[Logged]) -> Series:
    """Return one number's series with what was logged between its samples, and without rows where nothing was."""
    there = ~is_missing(series.values[:, 0])
    between = np.array([(one.step, one.time, one.value) for one in values], dtype=RECORD)
    steps = np.concatenate([series.steps[there], between["step"]])
    order, steps = _latest(steps)
    times = None if series.times is None else np.concatenate([series.times[there], between["time"]])[order]
    numbers: Floats = np.concatenate([series.values[there, 0], between["value"]])[order, None]
    return series._replace(steps=steps, values=numbers, times=times)


def _latest(steps: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return the order in which ``steps`` ascend, of each step the last one, and the steps in it."""
    order = np.argsort(steps, kind="stable")
    ascending = steps[order]
    last = np.append(np.diff(ascending) > 0, True)[: len(order)]
    return order[last], ascending[last]
