"""The figures: recall, precision, false alarms, lead, causes and fixes, each with its interval."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median
from typing import TypeVar

from stabmon.evaluation.baselines import BASELINES
from stabmon.evaluation.intervals import Figure, bootstrap, share
from stabmon.evaluation.verdict import Verdict
from stabmon.records import Record

T = TypeVar("T")


class Row(Record):
    """The figures of some runs."""

    title: str
    configurations: int
    runs: int
    failed: int
    recall: Figure
    """Share of failed runs with an alarm."""
    precision: Figure
    """Share of runs with an alarm that failed."""
    false_alarms: Figure
    """Alarms per healthy run."""
    lead: Figure
    """Median steps from the first alarm to the loss showing it, over the failed runs that were found."""
    at_start: Figure
    """Share of failed runs that preflight found, before the first step."""
    cause: Figure
    """Share of found failures, of those that some knob is known to mend, whose first fix turns such a knob."""
    mended: Figure
    """Share of failed runs that their first fix makes healthy from step 0; a run without a fix counts as not mended.

    Runs whose fix has not been tried are left out; ``count`` says how many were tried.
    """
    mended_live: Figure
    """Share of those in which it was applied at the step of the finding that it then makes healthy."""


class BaselineRow(Record):
    """The figures of a baseline."""

    title: str
    source: str
    recall: Figure
    precision: Figure
    false_alarms: Figure
    lead: Figure
    recall_at_our_precision: float
    """Best recall over all its thresholds at which its precision is at least the rules'; chosen on these very runs."""


def row(title: str, verdicts: Sequence[Verdict]) -> Row:
    """Return the figures of ``verdicts``."""
    failed = [one for one in verdicts if one.failed]
    healthy = [one for one in verdicts if not one.failed]
    leads = [one for one in failed if one.first is not None]
    causes = [one for one in failed if one.found and one.knobs]
    tried = [one for one in failed if one.mended is not None or not one.fixable]
    live = [one for one in failed if one.mended_live is not None]
    return Row(
        title=title,
        configurations=len({one.configuration for one in verdicts}),
        runs=len(verdicts),
        failed=len(failed),
        recall=share(_by_configuration(failed, lambda one: one.found)),
        precision=share(_by_configuration([one for one in verdicts if one.found], lambda one: one.failed)),
        false_alarms=bootstrap(_by_configuration(healthy, lambda one: float(len(one.alarms))), mean),
        lead=bootstrap(_by_configuration(leads, _lead), median),
        at_start=share(_by_configuration(failed, lambda one: any(alarm.at_start for alarm in one.alarms))),
        cause=share(_by_configuration(causes, lambda one: one.named in one.knobs)),
        mended=share(_by_configuration(tried, lambda one: bool(one.mended))),
        mended_live=share(_by_configuration(live, lambda one: bool(one.mended_live))),
    )


def rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """Return the figures of all runs, of each workload, and of each kind."""
    found = [row("all", verdicts)]
    for workload, some in _grouped(verdicts, lambda one: one.workload).items():
        found.append(row(f"workload {workload}", some))
    for kind, some in _grouped(verdicts, lambda one: one.kind).items():
        found.append(row(kind, some))
    return found


def baseline_rows(verdicts: Sequence[Verdict]) -> list[BaselineRow]:
    """Return the figures of every baseline on the same runs."""
    precision = row("all", verdicts).precision.value
    return [_baseline_row(baseline.name, baseline.source, verdicts, precision) for baseline in BASELINES]


def recall_at(verdicts: Sequence[Verdict], name: str, precision: float) -> float:
    """Return the best recall that baseline ``name`` has over all thresholds with at least this precision."""
    peaks = [(one.baselines[name].peak, one.failed) for one in verdicts]
    failures, best = sum(failed for _, failed in peaks), 0.0
    for threshold in {peak for peak, _ in peaks}:
        said = [failed for peak, failed in peaks if peak >= threshold]
        if failures and sum(said) / len(said) >= precision:
            best = max(best, sum(said) / failures)
    return best


def _baseline_row(name: str, source: str, verdicts: Sequence[Verdict], precision: float | None) -> BaselineRow:
    failed = [one for one in verdicts if one.failed]
    said = [one for one in verdicts if one.baselines[name].first is not None]
    healthy = [one for one in verdicts if not one.failed]
    found = [one for one in said if one.failed]
    return BaselineRow(
        title=name,
        source=source,
        recall=share(_by_configuration(failed, lambda one: one.baselines[name].first is not None)),
        precision=share(_by_configuration(said, lambda one: one.failed)),
        false_alarms=bootstrap(_by_configuration(healthy, lambda one: float(one.baselines[name].events)), mean),
        lead=bootstrap(
            _by_configuration(found, lambda one: float(one.shown - (one.baselines[name].first or 0))), median
        ),
        recall_at_our_precision=0.0 if precision is None else recall_at(verdicts, name, precision),
    )


def _lead(one: Verdict) -> float:
    return float(one.shown - (one.first or 0))


def _by_configuration(verdicts: Iterable[Verdict], value: Callable[[Verdict], T]) -> Mapping[str, list[T]]:
    found: dict[str, list[T]] = defaultdict(list)
    for one in verdicts:
        found[one.configuration].append(value(one))
    return found


def _grouped(verdicts: Iterable[Verdict], key: Callable[[Verdict], str]) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = defaultdict(list)
    for one in verdicts:
        found[key(one)].append(one)
    return dict(sorted(found.items()))
