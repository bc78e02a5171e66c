"""Reasons for what is missing in a run: lines, each a failure to record of one of the processes that wrote the run."""

from collections.abc import Iterable

from sqlalchemy import select

from stabmon.records import Failure
from stabmon.store import schema
from stabmon.store.one_run import OneRun


def failures_of(run: OneRun) -> dict[int, Failure]:
    """Return the failures of a run by their number, in the order in which they came."""
    if not schema.holds(run.connection, schema.failure):
        return {}
    kept = Failure.model_fields.keys()
    lines = run.read(select(schema.failure).order_by(schema.failure.c.number)).all()
    return {line.number: Failure.model_validate({key: line._mapping[key] for key in kept}) for line in lines}


def write_failures(run: OneRun, every: Iterable[Failure]) -> None:
    """Write failures, each over what was written of it before: that of the same subject, reason and first step."""
    known = failures_of(run)
    numbers = {_key(one): number for number, one in known.items()}
    for one in every:
        number = numbers.setdefault(_key(one), len(numbers))
        if known.get(number) != one:
            run.remove(schema.failure, number=number)
            run.add(schema.failure, number=number, **one.model_dump())


def _key(one: Failure) -> tuple[str, str, int | None]:
    return one.subject, one.reason, one.first_step
