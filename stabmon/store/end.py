"""The end of a run: what its writer must know to append the next sample."""

from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import func, select

from stabmon.store import schema
from stabmon.store.fold import Sample
from stabmon.store.one_run import OneRun


class Counts(NamedTuple):
    """Amount of a run that is stored; two writers of one run differ in one of these."""

    samples: int
    attempts: int
    logged: int
    """Lines of numbers that were logged between samples."""


class RunEnd(NamedTuple):
    """The samples that are not folded yet, and where the next one goes."""

    tail: tuple[Sample, ...] = ()
    sequence: int = 0
    attempt: int = 0
    last_step: int | None = None
    logged: int = 0
    """Lines of numbers that were logged between samples."""
    last_logged: int | None = None
    """Step of what was logged last, where no sample came after it."""

    @property
    def counts(self) -> Counts:
        """Amount of the run that is stored when this is its end."""
        return Counts(self.sequence, self.attempt, self.logged)

    def goes_back(self, step: int) -> bool:
        """Return whether ``step`` was passed before, so that it belongs to a new attempt."""
        before = -1 if self.last_logged is None else self.last_logged
        return self.attempt == 0 or step < before or (self.last_step is not None and step <= self.last_step)


def counts_of(run: OneRun) -> Counts | None:
    """Return how much is stored, and keep others from writing until the transaction ends; None: there is no run."""
    samples = run.read(select(schema.heartbeat.c.samples).with_for_update()).scalar_one_or_none()
    if samples is None:
        return None
    return Counts(samples, _number(run, func.max(schema.attempt.c.number)), _number(run, _lines()))


def end_of(run: OneRun) -> RunEnd:
    """Read the end of the run."""
    tail, fold, logged = schema.tail.c, schema.fold.c, schema.logged.c
    rows = run.read(select(schema.tail).order_by(tail.sequence)).all()
    samples = tuple(Sample(row.step, row.time, np.frombuffer(row.data, dtype="<f4")) for row in rows)
    attempt = _number(run, func.max(schema.attempt.c.number))
    sequence, step, of = (rows[-1].sequence + 1, rows[-1].step, rows[-1].attempt) if rows else (0, None, 0)
    if not rows:
        last = run.read(select(schema.fold).order_by(fold.sequence.desc()).limit(1)).one_or_none()
        sequence, step, of = (last.sequence + last.samples, last.last, last.attempt) if last else (0, None, 0)
    later = select(func.max(logged.last)).where(logged.attempt == attempt, logged.sequence == sequence)
    last_step = step if of == attempt else None
    return RunEnd(samples, sequence, attempt, last_step, _number(run, _lines()), run.read(later).scalar_one())


def _lines() -> Any:
    return func.count(schema.logged.c.number)


def _number(run: OneRun, what: Any) -> int:
    return int(run.read(select(what)).scalar_one() or 0)


def is_begun(run: OneRun) -> bool:
    """Return whether the run has its line."""
    return run.read(select(schema.run.c.name)).first() is not None
