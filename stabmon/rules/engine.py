"""From sightings to events: a finding opens, grows, clears, and may open again.

The engine is fed one sample at a time, live and in a replay alike, so both end with the same findings.
"""

import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from stabmon.records import Cell, Finding, Fix, RunInfo, Severity
from stabmon.rules.limits import Limits
from stabmon.rules.registry import Rule, Sighting, catalogue, find, sighted
from stabmon.rules.view import Run
from stabmon.series import Floats, Layout

logger = logging.getLogger("stabmon")

QUIET = 3
"""Consecutive measured samples without a sighting after which an event is over."""
GROWN = 1.25
"""How much worse an open event must get before it is told again."""

Place = tuple[str, str | None]
"""Code and layer of an event; the layer is None where a rule has one event for the whole run."""


@dataclass(slots=True)
class _Event:
    """One event while it changes; ``finding`` makes the record of how it stands."""

    rule: Rule
    first: Sighting
    opened: int
    severity: Severity
    worst: Sighting
    peak: int
    last: int
    message: str = ""
    cause: str = ""
    cells: tuple[Cell, ...] = ()
    fixes: tuple[Fix, ...] = ()
    told: float = 0.0
    quiet: int = 0
    quiet_since: int = 0
    cleared: int | None = None
    _record: Finding | None = field(default=None, repr=False)

    def adopt(self, sighting: Sighting, step: int) -> None:
        """Make ``sighting`` the worst so far."""
        self.worst, self.peak = sighting, step
        self.message, self.cause, self.cells = sighting.tell()
        self.touch()

    def touch(self) -> None:
        self._record = None

    @property
    def finding(self) -> Finding:
        if self._record is None:
            hit = self.worst.hit
            self._record = Finding(
                code=self.rule.code,
                name=self.rule.name,
                severity=self.severity,
                evidence=self.rule.evidence,
                layer=self.first.hit.layer,
                head=hit.head,
                metric=hit.metric,
                value=hit.value,
                limit=hit.limit,
                message=self.message,
                cause=self.cause,
                opened=self.opened,
                peak=self.peak,
                last=self.last,
                cleared=self.cleared,
                cells=self.cells,
                fixes=self.fixes,
            )
        return self._record


class Engine:
    """Runs every rule on each sample and keeps the run's findings.

    silence: codes (or names) of rules that are not to speak.

    Raises:
        ConfigError: ``silence`` names a rule that does not exist.
    """

    def __init__(
        self, info: RunInfo, layout: Layout, limits: Limits | None = None, silence: Collection[str] = ()
    ) -> None:
        silent = {find(code).code for code in silence}
        self._rules = [rule for rule in catalogue() if rule.code not in silent]
        self._tells_non_finite = "NUM001" not in silent
        self._limits = limits or Limits()
        self._run = Run(info, layout)
        self._events: list[_Event] = []
        self._open: dict[Place, _Event] = {}
        self._pending: dict[Place, int] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every event so far, in the order in which they opened."""
        return tuple(event.finding for event in self._events)

    def observe(self, step: int, values: Floats) -> list[Finding]:
        """Take the sample of ``step``, one row of the layout, float32 [width]; return what opened, grew or cleared."""
        self._run.add(step, values)
        changed: list[_Event] = []
        for rule in tuple(self._rules):
            try:
                changed += self._apply(rule)
            except Exception:  # a bug in a rule must not stop a training: it is reported once and the rule is dropped
                logger.exception("rule %s failed at step %d and is switched off for this run", rule.code, step)
                self._rules.remove(rule)
        return [event.finding for event in changed]

    def _apply(self, rule: Rule) -> Iterator[_Event]:
        seen: set[Place] = set()
        for sighting in sighted(rule, self._run, self._limits):
            place = (rule.code, None if sighting.one_for_the_run else sighting.hit.layer)
            seen.add(place)
            event = self._open.get(place)
            if event is not None:
                if self._goes_on(event, sighting):
                    yield event
            elif self._may_open(rule, sighting):
                self._pending[place] = self._pending.get(place, 0) + 1
                if self._pending[place] >= sighting.confirmations:
                    yield self._opened(place, rule, sighting)
            else:
                self._pending.pop(place, None)
        self._forget_pending(rule, seen)
        yield from self._cleared(rule, seen)

    def _may_open(self, rule: Rule, sighting: Sighting) -> bool:
        if not sighting.opens or sighting.hit.excess <= 1:
            return False
        if self._tells_non_finite and rule.code != "NUM001" and not math.isfinite(sighting.hit.value):
            return False
        return not any((code, sighting.hit.layer) in self._open for code in rule.symptom_of)

    def _opened(self, place: Place, rule: Rule, sighting: Sighting) -> _Event:
        step = self._run.step
        severity = sighting.severity or rule.severity
        event = _Event(rule, sighting, step, severity, sighting, step, step, told=sighting.hit.excess)
        event.adopt(sighting, step)
        event.fixes = sighting.fixes()
        self._events.append(event)
        self._open[place] = event
        del self._pending[place]
        return event

    def _goes_on(self, event: _Event, sighting: Sighting) -> bool:
        """Take a sighting of an open event; return whether it must be told again."""
        event.last, event.quiet = self._run.step, 0
        event.touch()
        excess, severity = sighting.hit.excess, sighting.severity or event.rule.severity
        graver = severity.rank > event.severity.rank and sighting.opens
        if graver:
            event.severity, event.fixes = severity, sighting.fixes()
        if excess > event.worst.hit.excess:
            event.adopt(sighting, self._run.step)
        if not graver and excess <= event.told * GROWN:
            return False
        event.told = max(excess, event.told)
        return True

    def _forget_pending(self, rule: Rule, seen: set[Place]) -> None:
        for place in [place for place in self._pending if place[0] == rule.code and place not in seen]:
            del self._pending[place]

    def _cleared(self, rule: Rule, seen: set[Place]) -> Iterator[_Event]:
        for place in [place for place in self._open if place[0] == rule.code and place not in seen]:
            event, run = self._open[place], self._run
            if not run.was_measured(event.worst.hit.metric, event.first.hit.layer):
                continue
            if event.quiet == 0:
                event.quiet_since = run.step
            event.quiet += 1
            if event.quiet >= QUIET:
                event.cleared = event.quiet_since
                event.touch()
                del self._open[place]
                yield event
