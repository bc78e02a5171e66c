"""A finding while the run goes on, and the record of its present state."""

from dataclasses import dataclass, field

from stabmon.findings import Finding, Key, Reading
from stabmon.fixes.record import Fix
from stabmon.records import Severity
from stabmon.rules.registry import Observation, Rule

AGREEING = 8
"""Samples beyond which more of them make a finding no surer."""


@dataclass(slots=True, eq=False)
class LiveFinding:
    """One finding, from the sample at which it opened to the one at which it cleared, each time that it opens."""

    rule: Rule
    layer: str | None
    run_wide: bool
    """It is about the run as a whole; its layer names the first place only."""
    opened: int
    sample: int
    """Number of the sample at which it opened, from 1."""
    began: int
    """Number of the sample at which its rule first saw it, this time; it opens when enough samples in a row agree."""
    severity: Severity
    worst: Observation
    peak: int
    last: int
    agreeing: int
    """Samples over the limit so far."""
    message: str = ""
    cause: str = ""
    cells: tuple[Reading, ...] = ()
    fixes: tuple[Fix, ...] = ()
    reported_excess: float = 0.0
    """Ratio to the limit when it was last reported."""
    quiet: int = 0
    quiet_since: int = 0
    cleared: int | None = None
    ended: int | None = None
    """Number of the sample at which it was found to be over."""
    times: int = 1
    reopened: int | None = None
    follows: "LiveFinding | None" = None
    """The finding whose symptom this one is; never one that follows another itself."""
    lead: int | None = None
    _record: Finding | None = field(default=None, repr=False)

    @property
    def key(self) -> Key:
        """The key that no other finding of the run has."""
        return (self.rule.code, self.layer, self.opened)

    @property
    def confidence(self) -> float:
        """The confidence as odds of (times over the limit) x (samples that agree, at most ``AGREEING``) to 1."""
        odds = self.worst.hit.excess * min(self.agreeing, AGREEING)
        return 1.0 if odds == float("inf") else odds / (1 + odds)

    def reopen(self, again: "LiveFinding", step: int) -> None:
        """Take ``again``, which has just opened at ``step``, as a repetition of this one."""
        self.times, self.reopened = self.times + 1, step
        self.began, self.last, self.quiet, self.cleared, self.ended = again.began, step, 0, None, None
        self.agreeing += again.agreeing
        if again.worst.hit.excess > self.worst.hit.excess:
            self.worst, self.peak = again.worst, step
            self.message, self.cause, self.cells = again.message, again.cause, again.cells
        self.reported_excess = max(self.reported_excess, again.reported_excess)
        self.touch()

    def end(self, step: int, sample: int) -> None:
        """Clear at ``step``, as found at the sample with this number."""
        self.cleared, self.ended = step, sample
        self.touch()

    def adopt(self, observation: Observation, step: int) -> None:
        """Make ``observation`` the worst so far."""
        self.worst, self.peak = observation, step
        self.message, self.cause, self.cells = observation.explain()
        self.touch()

    def touch(self) -> None:
        """Discard the record, which is out of date."""
        self._record = None

    @property
    def record(self) -> Finding:
        """The record of its present state."""
        if self._record is None:
            self._record = self.recorded()
        return self._record

    def recorded(self) -> Finding:
        """Make the record.

        Raises:
            ValidationError: the rule gave something else than text, numbers, readings and fixes.
        """
        hit = self.worst.hit
        return Finding(
            code=self.rule.code,
            name=self.rule.name,
            severity=self.severity,
            evidence=self.rule.evidence,
            layer=self.layer,
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
            times=self.times,
            reopened=self.reopened,
            cells=self.cells,
            fixes=self.fixes,
            confidence=round(self.confidence, 3),
            follows=self.follows.key if self.follows is not None else None,
            lead=self.lead,
        )
