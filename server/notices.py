"""Events in the runs of a folder since the last look: findings that opened or cleared, runs that ended badly.

What is there at the first look is known and not reported, so that a server that starts anew is quiet.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from stabmon.findings import Finding, digest
from stabmon.findings.digest import address, alarming, in_order
from stabmon.names import span
from stabmon.records import Record, RunState, Severity
from stabmon.server.fleet import FleetRun

Kind = Literal["opened", "cleared", "crashed", "failed"]
ENDS: Mapping[RunState, Kind] = {RunState.CRASHED: "crashed", RunState.FAILED: "failed"}


class Notice(Record):
    """One thing that happened in one run; findings of one rule that changed at once are one notice."""

    kind: Kind
    run: str
    time: float
    """Seconds since the epoch at which it was seen."""
    text: str
    """It in one line."""
    code: str | None = None
    """Of the rule; None where the run ended."""
    name: str | None = None
    severity: Severity | None = None
    layers: tuple[str, ...] = ()
    step: int | None = None
    """At which the first of the findings opened or cleared, or the last step of a run that ended."""
    keys: tuple[str, ...] = ()
    """The findings, as the API names them."""
    message: str | None = None
    """The first finding's sentence with its numbers."""
    cause: str | None = None
    fix: str | None = None
    """The fix to try first."""


class _Seen(NamedTuple):
    created: object = None
    state: RunState | None = None
    times: Mapping[str, tuple[int, bool]] = {}
    """Of each finding how often it opened, and whether it is open."""


class Observer:
    """Compares the runs with those of the last look."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen | None] | None = None
        """None for a run that was there at the first look and could not be read yet."""

    def look(self, runs: Iterable[FleetRun]) -> list[Notice]:
        """Return what happened since the last look; nothing at the first one."""
        before, now = self._seen, {}
        notices: list[Notice] = []
        for run in runs:
            known = None if before is None else before.get(run.name, _Seen())
            if run.beat is None:
                now[run.name] = known
                continue
            now[run.name] = seen = _of(run)
            if known is not None:
                notices += _changes(run, known if known.created in (None, seen.created) else _Seen())
        self._seen = now
        return notices


def _of(run: FleetRun) -> _Seen:
    times = {address(one.key): (one.times, one.cleared is None) for one in run.found}
    return _Seen(run.created, run.beat.state if run.beat else None, times)


def _changes(run: FleetRun, before: _Seen) -> Iterator[Notice]:
    opened, cleared = [], []
    for one in alarming(in_order(run.found)):
        times, was_open = before.times.get(address(one.key), (0, False))
        opened += [one] if one.times > times else []
        cleared += [one] if one.cleared is not None and (was_open or one.times > times) else []
    changed: tuple[tuple[Kind, list[Finding]], ...] = (("opened", opened), ("cleared", cleared))
    for kind, found in changed:
        for code in dict.fromkeys(one.code for one in found):
            yield _of_rule(run, kind, [one for one in found if one.code == code])
    if run.beat is not None and run.beat.state in ENDS and run.beat.state is not before.state:
        end = ENDS[run.beat.state]
        said = f"{run.name} {end} after step {run.beat.step}: {run.process.text if run.process else ''}"
        yield Notice(kind=end, run=run.name, time=time.time(), text=said, step=run.beat.step)


def _of_rule(run: FleetRun, kind: Kind, found: list[Finding]) -> Notice:
    first = found[0]
    layers = tuple(one.layer for one in found if one.layer is not None)
    step = min(one.since for one in found) if kind == "opened" else max(one.cleared or 0 for one in found)
    place = f" in {span(layers)}" if layers else ""
    entry = digest(found).entries[0]
    said = f": {entry.message}. {entry.fix or ''}".rstrip() if kind == "opened" else ""
    return Notice(
        kind=kind,
        run=run.name,
        time=time.time(),
        text=f"{run.name}: {first.severity} {first.code} {first.name} {kind}{place} at step {step}{said}",
        code=first.code,
        name=first.name,
        severity=first.severity,
        layers=layers,
        step=step,
        keys=tuple(address(one.key) for one in found),
        message=first.message,
        cause=first.cause,
        fix=entry.fix,
    )
