"""One rule at work on one run: what it has open, what waits to be confirmed, and which limits hold where."""

import math
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from stabmon.rules.event import Event
from stabmon.rules.expected_effects import with_effects
from stabmon.rules.limits import Limits
from stabmon.rules.registry import Observation, Rule, limits_of
from stabmon.rules.view import Run

QUIET = 3
"""Consecutive measured samples without a observation after which an event is over."""
GROWN = 1.25
"""How much worse an open event must get before it is told again."""


class Change(Enum):
    """What happened to an event."""

    OPENED = "opened"
    ESCALATED = "escalated"
    GREW = "grew"
    CLEARED = "cleared"


class Changed(NamedTuple):
    """An event, and what happened to it at this sample."""

    event: Event
    change: Change


class _Pending(NamedTuple):
    """Something that was seen, but not by enough samples in a row yet."""

    samples: int
    began: int


class Judge:
    """Asks ``rule`` about each sample of a run.

    layers: every layer that the run has series of, for limits that hold for some of them only.
    says_non_finite: another rule speaks of values that are not finite, so this one opens nothing on them.
    """

    def __init__(self, rule: Rule, limits: Limits, layers: Iterable[str], *, says_non_finite: bool) -> None:
        self.rule = rule
        self._leaves_non_finite = says_non_finite and not rule.judges_non_finite
        self._ways = _ways(rule, limits, layers)
        self._open: dict[str | None, Event] = {}
        self._pending: dict[str | None, _Pending] = {}

    def look(self, run: Run) -> Iterator[Changed]:
        """Yield the events that opened, grew or cleared at the newest sample of ``run``."""
        seen: set[str | None] = set()
        for observation in self._sightings(run):
            place = None if observation.one_for_the_run else observation.hit.layer
            seen.add(place)
            event = self._open.get(place)
            if event is not None:
                change = _goes_on(event, observation, run)
                if change is not None:
                    yield Changed(event, change)
            elif self._may_open(observation):
                before = self._pending.get(place, _Pending(0, run.samples))
                self._pending[place] = before._replace(samples=before.samples + 1)
                if before.samples + 1 >= observation.confirmations:
                    yield Changed(self._opened(place, observation, run), Change.OPENED)
            else:
                self._pending.pop(place, None)
        if self._pending:
            self._pending = {place: pending for place, pending in self._pending.items() if place in seen}
        if self._open:
            yield from self._cleared(seen, run)

    def _sightings(self, run: Run) -> Iterator[Observation]:
        if len(self._ways) == 1:
            yield from self.rule.check(run, self._ways[0][0])
            return
        for limits, layers in self._ways:
            for observation in self.rule.check(run, limits):
                if (observation.hit.layer or "") in layers:
                    yield observation

    def _may_open(self, observation: Observation) -> bool:
        if not observation.opens or observation.hit.excess <= 1:
            return False
        return math.isfinite(observation.hit.value) or not self._leaves_non_finite

    def _opened(self, place: str | None, observation: Observation, run: Run) -> Event:
        pending = self._pending.pop(place)
        event = Event(
            rule=self.rule,
            layer=observation.hit.layer,
            run_wide=observation.one_for_the_run or observation.hit.layer is None,
            opened=run.step,
            sample=run.samples,
            began=pending.began,
            severity=observation.severity or self.rule.severity,
            worst=observation,
            peak=run.step,
            last=run.step,
            agreeing=pending.samples,
            reported_excess=observation.hit.excess,
        )
        event.adopt(observation, run.step)
        event.fixes = with_effects(observation.fixes(), run)
        event.recorded()  # what a rule tells wrongly is its own failure, before anyone else knows of the event
        self._open[place] = event
        return event

    def _cleared(self, seen: set[str | None], run: Run) -> Iterator[Changed]:
        for place in [place for place in self._open if place not in seen]:
            event = self._open[place]
            if not run.was_measured(event.worst.hit.metric, event.layer):
                continue
            if event.quiet == 0:
                event.quiet_since = run.step
            event.quiet += 1
            if event.quiet >= QUIET:
                event.cleared, event.ended = event.quiet_since, run.samples
                event.touch()
                del self._open[place]
                yield Changed(event, Change.CLEARED)


def _goes_on(event: Event, observation: Observation, run: Run) -> Change | None:
    """Take a observation of an open event; return what must be told of it, if anything."""
    excess, severity = observation.hit.excess, observation.severity or event.rule.severity
    event.last, event.quiet = run.step, 0
    event.agreeing += excess > 1
    event.touch()
    escalated = severity.rank > event.severity.rank and observation.opens
    if escalated:
        event.severity, event.fixes = severity, with_effects(observation.fixes(), run)
    if excess > event.worst.hit.excess:
        event.adopt(observation, run.step)
    if not escalated and excess <= event.reported_excess * GROWN:
        return None
    event.reported_excess = max(excess, event.reported_excess)
    return Change.ESCALATED if escalated else Change.GREW


def _ways(rule: Rule, limits: Limits, layers: Iterable[str]) -> list[tuple[Any, frozenset[str]]]:
    """Return each set of limits that the rule goes by, with the layers it holds for ("": the run's own series)."""
    ways: list[tuple[Any, set[str]]] = [(limits_of(rule, limits.of_layer("")), {""})]
    for layer in layers:
        own = limits_of(rule, limits.of_layer(layer))
        for known, where in ways:
            if known == own:
                where.add(layer)
                break
        else:
            ways.append((own, {layer}))
    return [(known, frozenset(where)) for known, where in ways]
