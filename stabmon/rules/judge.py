"""One rule applied to one run: its open findings, those that await confirmation, and the limits of each layer."""

import math
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any, NamedTuple

from stabmon.records import Severity
from stabmon.rules.causes import Causes
from stabmon.rules.expected_effects import with_effects
from stabmon.rules.limits import Limits
from stabmon.rules.live_finding import LiveFinding
from stabmon.rules.registry import Observation, Rule, limits_of
from stabmon.rules.view import Run

QUIET = 3
"""Consecutive measured samples without an observation after which a finding is over."""
GROWN = 1.25
"""Factor by which an open finding must get worse before it is reported again."""
APART = 3
"""Findings of one rule, layer and severity that are kept apart because they follow from different causes; what opens
after them is counted in the latest."""


class Transition(Enum):
    """A change of a finding."""

    OPENED = "opened"
    REOPENED = "reopened"
    ESCALATED = "escalated"
    GREW = "grew"
    CLEARED = "cleared"


class Changed(NamedTuple):
    """A finding, and what happened to it at this sample."""

    finding: LiveFinding
    change: Transition


class _Pending(NamedTuple):
    """Something that was seen, but not by enough samples in a row yet."""

    samples: int
    began: int


class Judge:
    """Applies ``rule`` to each sample of a run.

    layers: every layer that the run has series of, for limits that hold for some of them only.
    leaves_non_finite: another rule reports values that are not finite, so this one opens nothing on them.

    What clears and opens again at the same severity, from the same cause or from none, is the same finding.
    """

    def __init__(
        self, rule: Rule, limits: Limits, layers: Iterable[str], causes: Causes, *, leaves_non_finite: bool
    ) -> None:
        self.rule = rule
        self._leaves_non_finite = leaves_non_finite and not rule.judges_non_finite
        self._limits = _limits_by_layer(rule, limits, layers)
        self._causes = causes
        self._open: dict[str | None, LiveFinding] = {}
        self._over: dict[tuple[str | None, Severity], list[LiveFinding]] = {}
        """Findings that have cleared, by layer and severity, the latest last."""
        self._pending: dict[str | None, _Pending] = {}

    def look(self, run: Run) -> Iterator[Changed]:
        """Yield the findings that opened, reopened, grew or cleared at the newest sample of ``run``."""
        seen: set[str | None] = set()
        for observation in self._observations(run):
            layer = None if observation.one_for_the_run else observation.hit.layer
            seen.add(layer)
            finding = self._open.get(layer)
            if finding is not None:
                yield from self._went_on(layer, finding, observation, run)
            elif self._may_open(observation):
                before = self._pending.get(layer, _Pending(0, run.samples))
                self._pending[layer] = before._replace(samples=before.samples + 1)
                if before.samples + 1 >= observation.confirmations:
                    yield self._opened(layer, observation, run)
            else:
                self._pending.pop(layer, None)
        if self._pending:
            self._pending = {layer: pending for layer, pending in self._pending.items() if layer in seen}
        if self._open:
            yield from self._cleared(seen, run)

    def _observations(self, run: Run) -> Iterator[Observation]:
        if len(self._limits) == 1:
            yield from self.rule.check(run, self._limits[0][0])
            return
        for limits, layers in self._limits:
            for observation in self.rule.check(run, limits):
                if (observation.hit.layer or "") in layers:
                    yield observation

    def _may_open(self, observation: Observation) -> bool:
        if not observation.opens or observation.hit.excess <= 1:
            return False
        return math.isfinite(observation.hit.value) or not self._leaves_non_finite

    def _opened(self, layer: str | None, observation: Observation, run: Run) -> Changed:
        pending = self._pending.pop(layer)
        finding = self._made(observation, run, pending.began, pending.samples)
        known = self._repeated(layer, finding, run)
        if known is not None:
            known.reopen(finding, run.step)
            self._open[layer] = known
            return Changed(known, Transition.REOPENED)
        finding.fixes = with_effects(observation.fixes(), run)
        finding.recorded()  # a rule that gives something wrong fails here, before the finding is kept
        self._open[layer] = finding
        return Changed(finding, Transition.OPENED)

    def _made(self, observation: Observation, run: Run, began: int, agreeing: int) -> LiveFinding:
        finding = LiveFinding(
            rule=self.rule,
            layer=observation.hit.layer,
            run_wide=observation.one_for_the_run or observation.hit.layer is None,
            opened=run.step,
            sample=run.samples,
            began=began,
            severity=observation.severity or self.rule.severity,
            worst=observation,
            peak=run.step,
            last=run.step,
            agreeing=agreeing,
            reported_excess=observation.hit.excess,
        )
        finding.adopt(observation, run.step)
        return finding

    def _repeated(self, layer: str | None, finding: LiveFinding, run: Run) -> LiveFinding | None:
        """Return the finding of before that ``finding``, which opens now, is a repetition of."""
        over = self._over.get((layer, finding.severity))
        if not over:
            return None
        cause = self._causes.cause_of(finding, run.samples)
        same = [one for one in over if one.follows is cause]
        known = same[-1] if same else over[-1] if len(over) >= APART else None
        if known is not None:
            over.remove(known)
        return known

    def _went_on(
        self, layer: str | None, finding: LiveFinding, observation: Observation, run: Run
    ) -> Iterator[Changed]:
        """Take an observation of an open finding, which may become as severe as one that was over: that one goes on."""
        if observation.opens and (observation.severity or self.rule.severity).rank > finding.severity.rank:
            again = self._made(observation, run, finding.began, finding.agreeing)
            known = self._repeated(layer, again, run)
            if known is not None:
                self._end(layer, run.step, run)
                yield Changed(finding, Transition.CLEARED)
                known.reopen(again, run.step)
                self._open[layer] = known
                yield Changed(known, Transition.REOPENED)
                return
        change = _goes_on(finding, observation, run)
        if change is not None:
            yield Changed(finding, change)

    def _end(self, layer: str | None, step: int, run: Run) -> None:
        finding = self._open.pop(layer)
        finding.end(step, run.samples)
        self._over.setdefault((layer, finding.severity), []).append(finding)

    def _cleared(self, seen: set[str | None], run: Run) -> Iterator[Changed]:
        for layer in [layer for layer in self._open if layer not in seen]:
            finding = self._open[layer]
            if not run.was_measured(finding.worst.hit.metric, finding.layer):
                continue
            if finding.quiet == 0:
                finding.quiet_since = run.step
            finding.quiet += 1
            if finding.quiet >= QUIET:
                self._end(layer, finding.quiet_since, run)
                yield Changed(finding, Transition.CLEARED)


def _goes_on(finding: LiveFinding, observation: Observation, run: Run) -> Transition | None:
    """Take an observation of an open finding; return the change to report, if any."""
    excess, severity = observation.hit.excess, observation.severity or finding.rule.severity
    finding.last, finding.quiet = run.step, 0
    finding.agreeing += excess > 1
    finding.touch()
    escalated = severity.rank > finding.severity.rank and observation.opens
    if escalated:
        finding.severity, finding.fixes = severity, with_effects(observation.fixes(), run)
    if excess > finding.worst.hit.excess:
        finding.adopt(observation, run.step)
    if not escalated and excess <= finding.reported_excess * GROWN:
        return None
    finding.reported_excess = max(excess, finding.reported_excess)
    return Transition.ESCALATED if escalated else Transition.GREW


def _limits_by_layer(rule: Rule, limits: Limits, layers: Iterable[str]) -> list[tuple[Any, frozenset[str]]]:
    """Return each set of limits with the layers that it applies to ("": the series of the run as a whole)."""
    sets: list[tuple[Any, set[str]]] = [(limits_of(rule, limits.of_layer("")), {""})]
    for layer in layers:
        own = limits_of(rule, limits.of_layer(layer))
        for known, where in sets:
            if known == own:
                where.add(layer)
                break
        else:
            sets.append((own, {layer}))
    return [(known, frozenset(where)) for known, where in sets]
