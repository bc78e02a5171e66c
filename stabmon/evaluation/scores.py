"""Scores of an evaluation: recall, precision, false alarms, lead, causes and fixes, each with its interval."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, median
from typing import TypeVar

from stabmon.evaluation.baselines import BASELINES
from stabmon.evaluation.intervals import Figure, bootstrap, share
from stabmon.evaluation.verdict import Verdict
from stabmon.records import Record

T = TypeVar("T")


class Scores(Record):
    """The scores of some runs."""

    title: str
    configurations: int
    runs: int
    failed: int
    undecided: int
    """Runs that lost more than replicates differ by and less than a failure; they count as healthy where nothing else
    is said."""
    recall: Figure
    """Share of failed runs with an alarm."""
    precision: Figure
    """Share of runs with an alarm that failed."""
    precision_of_decided: Figure
    """The same without the undecided runs."""
    false_alarms: Figure
    """Alarms per run that did not fail."""
    false_alarms_of_decided: Figure
    """The same without the undecided runs: alarms per run that lost nothing."""
    lead: Figure
    """Median steps from the first alarm to the loss showing it, over the failed runs that were found."""
    at_start: Figure
    """Share of failed runs that preflight found, before the first step."""
    cause: Figure
    """Share of found failures, of those that some setting is known to fix, whose first fix changes such a setting."""
    fixed: Figure
    """Share of failed runs that their first fix makes healthy from step 0; a run without a fix counts as not fixed.

    Runs whose fix has not been tried are left out; ``count`` says how many were tried.
    """
    fixed_in_two: Figure
    """The same, where the first fix that is then named is applied as well if the run still fails.

    A second fix that was not tried counts as not fixed.
    """
    fixed_live: Figure
    """Share of those in which it was applied at the step of the finding that it then makes healthy."""


class BaselineScores(Record):
    """The scores of a baseline."""

    title: str
    source: str
    recall: Figure
    precision: Figure
    precision_of_decided: Figure
    false_alarms: Figure
    false_alarms_of_decided: Figure
    lead: Figure
    recall_at_our_precision: float
    """Best recall over all its thresholds at which its precision is at least the rules'; chosen on these very runs."""
    recall_at_our_precision_of_decided: float
    """The same, with the precision of both counted without the undecided runs."""


def scores(title: str, verdicts: Sequence[Verdict]) -> Scores:
    """Return the scores of ``verdicts``."""
    failed = [one for one in verdicts if one.failed]
    leads = [one for one in failed if one.first is not None]
    causes = [one for one in failed if one.found and one.settings]
    tried = [one for one in failed if one.fixed is not None or not one.fixable]
    live = [one for one in failed if one.fixed_live is not None]
    return Scores(
        title=title,
        configurations=len({one.configuration for one in verdicts}),
        runs=len(verdicts),
        failed=len(failed),
        undecided=len(verdicts) - len(_decided(verdicts)),
        recall=share(_by_configuration(failed, lambda one: one.found)),
        precision=_precision(verdicts, _is_found),
        precision_of_decided=_precision(_decided(verdicts), _is_found),
        false_alarms=_false_alarms(verdicts, _number_of_alarms),
        false_alarms_of_decided=_false_alarms(_decided(verdicts), _number_of_alarms),
        lead=bootstrap(_by_configuration(leads, _lead), median),
        at_start=share(_by_configuration(failed, lambda one: any(alarm.at_start for alarm in one.alarms))),
        cause=share(_by_configuration(causes, lambda one: one.named in one.settings)),
        fixed=share(_by_configuration(tried, lambda one: bool(one.fixed))),
        fixed_in_two=share(_by_configuration(tried, lambda one: bool(one.fixed_in_two))),
        fixed_live=share(_by_configuration(live, lambda one: bool(one.fixed_live))),
    )


def scores_by_group(verdicts: Sequence[Verdict]) -> list[Scores]:
    """Return the scores of all runs, of each workload, and of each kind."""
    found = [scores("all", verdicts)]
    for workload, some in _grouped(verdicts, lambda one: one.workload).items():
        found.append(scores(f"workload {workload}", some))
    for kind, some in _grouped(verdicts, lambda one: one.kind).items():
        found.append(scores(kind, some))
    return found


def baseline_scores(verdicts: Sequence[Verdict]) -> list[BaselineScores]:
    """Return the scores of every baseline on the same runs."""
    ours = scores("all", verdicts)
    return [_baseline_scores(baseline.name, baseline.source, verdicts, ours) for baseline in BASELINES]


def recall_at(verdicts: Sequence[Verdict], name: str, precision: float) -> float:
    """Return the best recall that baseline ``name`` has over all thresholds with at least this precision."""
    peaks = [(one.baselines[name].peak, one.failed) for one in verdicts]
    failures, best = sum(failed for _, failed in peaks), 0.0
    for threshold in {peak for peak, _ in peaks}:
        said = [failed for peak, failed in peaks if peak >= threshold]
        if failures and sum(said) / len(said) >= precision:
            best = max(best, sum(said) / failures)
    return best


def _baseline_scores(name: str, source: str, verdicts: Sequence[Verdict], ours: Scores) -> BaselineScores:
    failed, decided = [one for one in verdicts if one.failed], _decided(verdicts)
    found = [one for one in failed if one.baselines[name].first is not None]

    def says(one: Verdict) -> bool:
        return one.baselines[name].first is not None

    def events(one: Verdict) -> float:
        return float(one.baselines[name].events)

    def at(some: Sequence[Verdict], precision: Figure) -> float:
        return 0.0 if precision.value is None else recall_at(some, name, precision.value)

    return BaselineScores(
        title=name,
        source=source,
        recall=share(_by_configuration(failed, says)),
        precision=_precision(verdicts, says),
        precision_of_decided=_precision(decided, says),
        false_alarms=_false_alarms(verdicts, events),
        false_alarms_of_decided=_false_alarms(decided, events),
        lead=bootstrap(
            _by_configuration(found, lambda one: float(one.shown - (one.baselines[name].first or 0))), median
        ),
        recall_at_our_precision=at(verdicts, ours.precision),
        recall_at_our_precision_of_decided=at(decided, ours.precision_of_decided),
    )


def _decided(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return [one for one in verdicts if one.label.decided]


def _precision(verdicts: Iterable[Verdict], says: Callable[[Verdict], bool]) -> Figure:
    return share(_by_configuration(filter(says, verdicts), lambda one: one.failed))


def _false_alarms(verdicts: Iterable[Verdict], number: Callable[[Verdict], float]) -> Figure:
    return bootstrap(_by_configuration((one for one in verdicts if not one.failed), number), mean)


def _is_found(one: Verdict) -> bool:
    return one.found


def _number_of_alarms(one: Verdict) -> float:
    return float(len(one.alarms))


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
