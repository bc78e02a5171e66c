"""One run, judged: its outcome, what was found and when, and whether the fix fixed it."""

from collections.abc import Iterable, Mapping, Sequence

from stabmon.evaluation.baselines import BASELINES
from stabmon.evaluation.labels import Label
from stabmon.evaluation.matrix import Half
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.recorded import Recorded
from stabmon.findings import Finding, Key
from stabmon.findings.digest import alarming
from stabmon.fixes import registry
from stabmon.records import Record, Severity


class Alarm(Record):
    """A rule with a finding at warning level or above that is no symptom of another; its layers are one alarm."""

    code: str
    severity: Severity
    opened: int
    """First step at which it was a warning, 0 for what preflight found."""
    at_start: bool
    """True if preflight found it, before the first step."""
    fix: str | None
    """Setting that its first fix changes."""


class BaselineAlarms(Record):
    """The score of a baseline over one run."""

    peak: float
    """Highest score, which any threshold can be held against."""
    first: int | None
    """First step above the baseline's own threshold."""
    events: int
    """Times the score rose above it."""


class Verdict(Record):
    """One run of the matrix, judged."""

    name: str
    configuration: str
    workload: str
    kind: str
    half: Half
    label: Label
    shown: int
    """First step at which the loss itself shows the failure; the number of steps where it never does."""
    alarms: tuple[Alarm, ...]
    baselines: dict[str, BaselineAlarms]
    settings: tuple[str, ...] = ()
    """Settings that are known to fix it: a healthy run of the matrix or a fixed one differs in nothing else."""
    fixed: bool | None = None
    """True if it is healthy with its first fix from step 0; None where that was not tried."""
    fixed_in_two: bool | None = None
    """True if it is healthy with its first fix, or with that and the first one named then; None: not tried."""
    fixed_live: bool | None = None
    """True if it is healthy when the first fix that the monitor names is applied at that step; None: not tried."""
    fixable: bool = False
    """True if a fix was named that can be applied from step 0."""

    @property
    def failed(self) -> bool:
        """True if the run failed."""
        return self.label.failed

    @property
    def found(self) -> bool:
        """True if there was any alarm."""
        return bool(self.alarms)

    @property
    def first(self) -> int | None:
        """Step of the first alarm."""
        return min((alarm.opened for alarm in self.alarms), default=None)

    @property
    def named(self) -> str | None:
        """The setting that the fix of the first alarm with one would change."""
        return next((alarm.fix for alarm in self.alarms if alarm.fix is not None), None)


def alarms(at_start: Sequence[Finding], in_samples: Sequence[Finding], warned: Mapping[Key, int]) -> tuple[Alarm, ...]:
    """Return the alarms among findings, in the order in which a user would see them.

    warned: steps at which findings in the samples became a warning.
    """
    early = [(finding, 0, True) for finding in as_alarms(at_start)]
    late = [(finding, warned[finding.key], False) for finding in as_alarms(in_samples, warned)]
    found: dict[str, Alarm] = {}
    for finding, step, is_early in (*early, *late):
        if finding.code not in found:
            found[finding.code] = Alarm(
                code=finding.code,
                severity=finding.severity,
                opened=step,
                at_start=is_early,
                fix=registry.find(finding.fixes[0].kind).family if finding.fixes else None,
            )
    return tuple(found.values())


def as_alarms(findings: Iterable[Finding], warned: Mapping[Key, int] | None = None) -> list[Finding]:
    """Return the findings that count as alarms, first and most severe first: warnings and errors that follow from none.

    warned: steps at which they became a warning, where those may differ from the ones at which they opened.
    """
    own = [one for one in alarming(findings) if one.follows is None]
    return sorted(own, key=lambda one: ((warned or {}).get(one.key, one.opened), -one.severity.rank))


def of_baselines(run: Outcome, recorded: Recorded) -> dict[str, BaselineAlarms]:
    """Return the alarms of each baseline over a run; it reads every loss, and the gradient norms that were sampled."""
    steps = len(run.losses)
    losses = recorded.series("loss", steps)
    losses[:] = run.losses
    gradients = recorded.series("total_gradient_norm", steps)
    found = {}
    for baseline in BASELINES:
        scores = baseline.scores(losses, gradients)
        over = scores > baseline.threshold
        rises = int(over[:1].sum() + (over[1:] & ~over[:-1]).sum())
        first = int(over.argmax()) if over.any() else None
        found[baseline.name] = BaselineAlarms(peak=float(scores.max(initial=-1e30)), first=first, events=rises)
    return found
