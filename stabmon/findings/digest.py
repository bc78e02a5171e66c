"""The digest of findings: their order, groups and wording wherever they are shown.

The command line, the console, TensorBoard, preflight, the trial's report, the API and the page all read a ``Digest``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from stabmon.findings.record import Finding, Key
from stabmon.fixes.record import Fix
from stabmon.formatting import plural, words
from stabmon.names import natural_key, span
from stabmon.records import LIVING, Heartbeat, Record, RunState, Severity

WHOLE_RUN = "whole run"
"""Place of a finding that belongs to no layer."""
Level = Literal["error", "warning", "info", "recovered", "healthy"]
"""``recovered``: there were warnings or errors, and all have cleared; ``info``: there is no sample yet."""


class Group(NamedTuple):
    """The findings of one rule at one severity, open or cleared: its layers, and how often it opened."""

    findings: tuple[Finding, ...]
    """In order; the first is shown for all."""
    symptoms: tuple[Group, ...] = ()
    """Groups of the findings that follow from these."""

    @property
    def first(self) -> Finding:
        """The finding whose words and fix are shown for the group."""
        return self.findings[0]


class Entry(Record):
    """A group in words."""

    id: str
    """Name of the group, not used by another one of the same digest."""
    code: str
    name: str
    severity: Severity
    open: bool
    title: str
    """The rule's name as words."""
    where: str
    """"layers.0 to layers.3", "layers.2 head 1", or ``WHOLE_RUN``."""
    when: str
    """"since step 0", "step 147", "steps 3 to 20", "17 times since step 40"."""
    message: str
    """The first finding's sentence with its numbers, without a full stop; its layer is named where there are more."""
    cause: str
    fix: str | None
    """The fix to try first, in a few words; None where the rule names none."""
    advice: str | None
    """The same as sentences: what, why, and the expected effect."""
    first_try: str | None = None
    """Code of the entry before it whose fix changes the same thing in the same places: apply that one, not this."""
    follows: Key | None
    """Key of the finding that the first of these follows from."""
    keys: tuple[str, ...]
    """Addresses of the findings, in order."""
    symptoms: tuple[Entry, ...] = ()

    @property
    def headline(self) -> str:
        """Severity, code and name."""
        return f"{self.severity} {self.code} {self.name}"

    @property
    def place_and_time(self) -> str:
        """Place and time as one phrase: "in layers.0 to layers.3 since step 0"; the whole run is left out."""
        return self.when if self.where == WHOLE_RUN else f"in {self.where} {self.when}"


class Health(Record):
    """The findings in a sentence."""

    level: Level
    title: str
    text: str
    key: str | None = None
    """Address of the finding that shows why."""


class Process(Record):
    """The state of the run's process in a sentence."""

    state: RunState
    level: Level
    title: str
    text: str


class Digest(Record):
    """All findings of a run, ready to be shown."""

    health: Health
    process: Process | None = None
    """None where the state of the run is not known."""
    counts: dict[Severity, int] = Field(default_factory=dict)
    """Number of findings by severity, the most severe first; a severity without any is left out."""
    entries: tuple[Entry, ...] = ()

    @property
    def verdict(self) -> str:
        """The health in a line, and the process where it needs a look."""
        parts: list[Health | Process] = [self.health]
        if self.process is not None and self.process.level != "healthy":
            parts.append(self.process)
        return " ".join(f"{part.title}: {part.text}" for part in parts)


def digest(
    findings: Iterable[Finding], *, layers: int | None = None, beat: Heartbeat | None = None, started: bool = True
) -> Digest:
    """Return ``findings`` as they are shown.

    layers: number of attention layers that are watched, for the sentence about a healthy run.
    beat: the run's state, where it is known.
    started: whether the run has a sample, where it has no heartbeat.
    """
    ordered = in_order(findings)
    found = grouped(ordered)
    process = None if beat is None else process_of(beat)
    health = _health(found, layers, beat, started if beat is None else beat.step >= 0)
    return Digest(health=health, process=process, counts=counts(ordered), entries=tuple(_entries(found)))


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings: open before cleared, then by severity, by step of opening, by code, by layer."""
    return tuple(sorted(findings, key=_rank))


def _rank(finding: Finding) -> tuple[object, ...]:
    return (
        finding.cleared is not None,
        -finding.severity.rank,
        finding.opened,
        finding.code,
        natural_key(finding.layer or ""),
    )


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """Group findings by rule, and what follows from them under them; a group ranks as the first of all its findings.

    A symptom whose cause is not among ``findings`` has a group of its own.
    """
    ordered = in_order(findings)
    known = {finding.key for finding in ordered}
    groups = []
    for own in _by_rule(finding for finding in ordered if finding.follows not in known):
        keys = {finding.key for finding in own}
        below = _by_rule(finding for finding in ordered if finding.follows in keys)
        groups.append(Group(own, tuple(Group(symptoms) for symptoms in below)))
    return sorted(groups, key=lambda group: min(_rank(one.first)[:2] for one in (group, *group.symptoms)))


def _by_rule(ordered: Iterable[Finding]) -> list[tuple[Finding, ...]]:
    found: dict[tuple[object, ...], list[Finding]] = {}
    for finding in ordered:
        found.setdefault((finding.code, finding.severity, finding.cleared is None), []).append(finding)
    return [tuple(own) for own in found.values()]


def alarming(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings at warning level and above, in the order given."""
    return [finding for finding in findings if finding.severity.rank >= Severity.WARNING.rank]


def counts(findings: Iterable[Finding]) -> dict[Severity, int]:
    """Return the number of findings by severity, the most severe first."""
    found = Counter(finding.severity for finding in findings)
    return {severity: found[severity] for severity in sorted(found, key=lambda severity: -severity.rank)}


def first_fixes(findings: Iterable[Finding]) -> tuple[Fix, ...]:
    """Return the first fix of the first rule in the order of the groups that has one, for each of its layers.

    One cause at a time: other findings may be its symptoms.
    """
    ordered = [group.findings for group in grouped(findings)]
    code = next((own[0].code for own in ordered if own[0].fixes), None)
    fixes = (finding.fix for own in ordered for finding in own if finding.code == code and finding.fixes)
    return tuple(dict.fromkeys(fixes))


def address(key: Key) -> str:
    """Return a finding's key as text, as the page's address has it: "ATT001:layers.0:0"."""
    code, layer, opened = key
    return f"{code}:{layer or ''}:{opened}"


def advice(fix: Fix) -> str:
    """Return a fix as sentences: what it changes, why, and its expected effect."""
    expected = "" if fix.effect is None else f" Expected: {fix.effect}."
    return f"{fix}: {fix.why.removesuffix('.')}.{expected}"


def _entries(
    groups: Iterable[Group], above: str = "", tried: dict[tuple[str, str], str] | None = None
) -> Iterable[Entry]:
    """Yield ``groups`` in words. tried: code of the first entry with a fix, by the fix's kind and module."""
    tried = {} if tried is None else tried
    for group in groups:
        first, is_open = group.first, group.first.cleared is None
        own = f"{above}{first.code} {first.severity} {'open' if is_open else 'cleared'}"
        first_try = _first_try(group.findings, tried)
        yield Entry(
            id=own,
            code=first.code,
            name=first.name,
            severity=first.severity,
            open=is_open,
            title=words(first.name),
            where=_where(group.findings),
            when=_when(group.findings),
            message=_message(group.findings),
            cause=first.cause,
            fix=_fix(first, first_try),
            advice=_advice(first, first_try),
            first_try=first_try,
            follows=first.follows,
            keys=tuple(address(finding.key) for finding in group.findings),
            symptoms=tuple(_entries(group.symptoms, f"{own} > ", tried)),
        )


def _fix(finding: Finding, first_try: str | None) -> str | None:
    if first_try is not None:
        return f"first try the fix of {first_try}"
    return str(finding.fix) if finding.fixes else None


def _advice(finding: Finding, first_try: str | None) -> str | None:
    if first_try is not None:
        return f"First try the fix of {first_try}, which changes the same thing in the same layers."
    return advice(finding.fix) if finding.fixes else None


def _first_try(findings: Sequence[Finding], tried: dict[tuple[str, str], str]) -> str | None:
    """Return the code of the entry whose fix is to be tried before that of ``findings``; note theirs in ``tried``."""
    if findings[0].cleared is not None or not findings[0].fixes:
        return None
    places = [(finding.fix.kind, finding.fix.module) for finding in findings if finding.fixes]
    codes = [tried.setdefault(place, findings[0].code) for place in places]
    return next((code for code in codes if code != findings[0].code), None)


def _message(findings: Sequence[Finding]) -> str:
    several = len({finding.layer for finding in findings}) > 1
    return findings[0].message.removesuffix(".") + (f" (in {findings[0].layer})" if several else "")


def _where(findings: Sequence[Finding]) -> str:
    layers = [finding.layer for finding in findings if finding.layer is not None]
    if not layers:
        return WHOLE_RUN
    head = findings[0].head if len(findings) == 1 else None
    return span(layers) + ("" if head is None else f" head {head}")


def _when(findings: Sequence[Finding]) -> str:
    """Return when they were flagged; of repeated ones, how often at most in one place."""
    first, last = min(finding.opened for finding in findings), max(finding.last for finding in findings)
    times = max(finding.times for finding in findings)
    often = "" if times == 1 else f"{'up to ' if len(findings) > 1 else ''}{times} times "
    if findings[0].cleared is None:
        return f"{often}since step {first}"
    between = f"step {first}" if last == first else f"steps {first} to {last}"
    return f"{often}in {between}" if often else between


_PROCESS: dict[RunState, tuple[Level, str, str]] = {
    RunState.STARTING: ("healthy", "Starting", "No step has ended yet."),
    RunState.RUNNING: ("healthy", "Running", ""),
    RunState.PAUSED: ("info", "Paused", "The process lives, but no step has ended for a while, or it is stopped."),
    RunState.STALE: ("warning", "Stale", "The heartbeat is late, and whether the process lives is not known here."),
    RunState.FINISHED: ("healthy", "Finished", ""),
    RunState.FAILED: ("error", "Failed", "The run was closed because of an exception."),
    RunState.CRASHED: ("error", "Crashed", "Its process ended without closing the run."),
}
_LEVELS: tuple[Level, ...] = ("error", "warning", "info", "recovered", "healthy")
"""The worst first."""


def process_of(beat: Heartbeat) -> Process:
    """Return the state of the process whose heartbeat is ``beat``; lost samples are at least a warning."""
    level, title, text = _PROCESS[beat.state]
    if beat.dropped:
        level = worst(level, "warning")
        text = f"{text} {beat.dropped:,} of {beat.samples + beat.dropped:,} samples are lost.".strip()
    return Process(state=beat.state, level=level, title=title, text=text)


def worst(*levels: Level) -> Level:
    """Return the worst of ``levels``."""
    return min(levels, key=_LEVELS.index)


def _health(groups: Sequence[Group], layers: int | None, beat: Heartbeat | None, started: bool) -> Health:
    bad = [each for group in groups for each in (group, *group.symptoms) if alarming(each.findings)]
    now = [group for group in bad if group.first.cleared is None]
    if now:
        return _unhealthy(now)
    if bad:
        past = [finding for group in bad for finding in group.findings]
        since = max(finding.cleared or 0 for finding in past)
        text = f"{plural(len(past), 'finding')} cleared."
        return Health(level="recovered", title=f"Healthy since step {since}", text=text, key=address(past[0].key))
    if not started and (beat is None or beat.state in LIVING):
        return Health(level="info", title="Waiting for the first step", text="Nothing was sampled yet.")
    if not started:
        return Health(level="info", title="No step was recorded", text="")
    watched = "" if layers is None else f" in {plural(layers, 'attention layer')}"
    title = "Healthy" if beat is None or beat.state in (*LIVING, RunState.FINISHED) else "Healthy until it ended"
    return Health(level="healthy", title=title, text=f"No warning or error{watched}.")


def _unhealthy(now: Sequence[Group]) -> Health:
    """Return the state of a run with open warnings or errors: the worst of them, and the first one's place and time."""
    first, is_error = now[0].first, any(group.first.severity is Severity.ERROR for group in now)
    more = Counter(finding.severity for group in now[1:] for finding in group.findings)
    worst = sorted(more, key=lambda severity: -severity.rank)
    counted = " and ".join(plural(more[severity], f"more {severity}") for severity in worst)
    others = f", and {counted}" if counted else ""
    place = "" if first.layer is None else f" in {_where(now[0].findings)}"
    return Health(
        level="error" if is_error else "warning",
        title=f"{'Unhealthy' if is_error else 'At risk'} since step {first.since}",
        text=f"{words(first.name)}{place}{others}.",
        key=address(first.key),
    )
