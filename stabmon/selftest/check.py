"""Running checks: each passes with a sentence, fails with one, or is skipped where the machine lacks what it needs."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum

from stabmon.records import Record


class Status(StrEnum):
    """The outcome of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Result(Record):
    """One check's end."""

    check: str
    status: Status
    detail: str
    """The comparison and its error, or what is wrong."""
    seconds: float


class FailedError(Exception):
    """A check that found something wrong."""


class SkippedError(Exception):
    """A check that this machine cannot run; the message says what it lacks."""


Check = Callable[[], str]
"""Returns what was checked, in a sentence; raises ``FailedError`` or ``SkippedError``."""


def run_all(checks: Iterable[tuple[str, Check]]) -> Iterator[Result]:
    """Yield the result of each named check as it ends; whatever a check raises is its own failure alone."""
    for name, check in checks:
        began = time.monotonic()
        try:
            status, detail = Status.PASSED, check()
        except SkippedError as reason:
            status, detail = Status.SKIPPED, str(reason)
        except FailedError as reason:
            status, detail = Status.FAILED, str(reason)
        except Exception as error:  # a crash of what is checked is what the check is there to find
            where = traceback.extract_tb(error.__traceback__)[-1]
            status = Status.FAILED
            detail = f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        yield Result(check=name, status=status, detail=detail, seconds=time.monotonic() - began)


def require(condition: bool, problem: str) -> None:
    """Fail the check with ``problem`` unless ``condition`` holds."""
    if not condition:
        raise FailedError(problem)
