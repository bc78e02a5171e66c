"""From finished runs to verdicts: labels by outcome, alarms by replay, and the lead between them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from stabmon.evaluation import labels, lead
from stabmon.evaluation.causes import settings_that_fix
from stabmon.evaluation.labels import Label, Reference
from stabmon.evaluation.matrix import Half, MatrixRun, halves
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.pool import Pool
from stabmon.evaluation.recorded import Recorded
from stabmon.evaluation.verdict import BaselineAlarms, Verdict, alarms, of_baselines
from stabmon.findings import Finding, Key
from stabmon.fixes import registry
from stabmon.fixes.record import Fix
from stabmon.rules import Limits


class RunFindings(NamedTuple):
    """Findings of one run, before and during the training, and by the baselines."""

    name: str
    at_start: tuple[Finding, ...]
    in_samples: tuple[Finding, ...]
    warned: dict[Key, int]
    """Steps at which findings in the samples became a warning."""
    baselines: dict[str, BaselineAlarms]
    versions: dict[str, str]
    """Versions that the run was trained with."""


class Ends(NamedTuple):
    """Outcomes of the runs of a matrix."""

    references: dict[str, Reference]
    """Reference of each group."""
    labels: dict[str, Label]
    spreads: dict[str, float]


How = Literal["first", "second", "live"]
"""The first fix from step 0, a second one beside it, or the first one at the step of its finding."""


class Repaired(NamedTuple):
    """A run that is to be trained again with a fix, or was."""

    run: str
    fix: Fix
    how: How
    outcome: Outcome | None
    """Its outcome; None where it was not trained."""


def ends(runs: Sequence[MatrixRun], outcomes: Mapping[str, Outcome]) -> Ends:
    """Label every run by its outcome."""
    by_configuration: dict[str, list[Outcome]] = defaultdict(list)
    for run in runs:
        by_configuration[run.configuration].append(outcomes[run.name])
    references = labels.references(by_configuration)
    found = {name: labels.label(run, references.get(run.group)) for name, run in outcomes.items()}
    return Ends(references, found, labels.spreads(by_configuration))


def find(runs: Iterable[Outcome], folder: Path, limits: Limits | None, pool: Pool) -> dict[str, RunFindings]:
    """Run rules and baselines over what was recorded in the runs below ``folder``."""
    return {found.name: found for found in pool.each(partial(_find, folder=folder, limits=limits), runs)}


def verdicts(
    runs: Sequence[MatrixRun],
    outcomes: Mapping[str, Outcome],
    ended: Ends,
    found: Mapping[str, RunFindings],
    repaired: Sequence[Repaired],
) -> tuple[Verdict, ...]:
    """Combine what is known of each run; ``repaired`` holds every fix that can be applied."""
    half = halves({run.configuration: run.kind for run in runs})
    healthy = [outcomes[name] for name, label in ended.labels.items() if not label.failed]
    return tuple(
        _verdict(run, half[run.configuration], outcomes, ended, found[run.name], repaired, healthy) for run in runs
    )


def _find(run: Outcome, folder: Path, limits: Limits | None) -> RunFindings:
    recorded = Recorded(folder / run.name)
    in_samples, warned = recorded.findings_and_warnings(limits)
    return RunFindings(
        run.name,
        recorded.at_the_start(limits),
        in_samples,
        warned,
        of_baselines(run, recorded),
        recorded.info.versions,
    )


def _verdict(
    run: MatrixRun,
    half: Half,
    outcomes: Mapping[str, Outcome],
    ended: Ends,
    found: RunFindings,
    repaired: Sequence[Repaired],
    healthy: Sequence[Outcome],
) -> Verdict:
    outcome, label = outcomes[run.name], ended.labels[run.name]
    reference = ended.references.get(outcome.group)
    usual = [outcomes[name] for name in reference.names] if reference else []
    own = {one.how: one for one in repaired if one.run == run.name}
    ok = {
        how: None if one.outcome is None else not labels.label(one.outcome, reference).failed
        for how, one in own.items()
    }
    settings = set(settings_that_fix(outcome, healthy)) if label.failed else set()
    settings |= {
        registry.find(one.fix.kind).family
        for how, one in own.items()
        if ok[how] and how != "second" and len(one.fix.parts) == 1
    }
    return Verdict(
        name=run.name,
        configuration=run.configuration,
        workload=run.config.workload,
        kind=run.kind,
        half=half,
        label=label,
        shown=lead.shown(outcome, usual, reference.margin if reference else 0.0),
        alarms=alarms(found.at_start, found.in_samples, found.warned),
        baselines=found.baselines,
        settings=tuple(sorted(settings)),
        fixed=ok.get("first"),
        fixed_in_two=_in_two(ok),
        fixed_live=ok.get("live"),
        fixable="first" in ok,
    )


def _in_two(ok: Mapping[How, bool | None]) -> bool | None:
    """Return whether the first fix or the second beside it made the run healthy; None where that was not tried."""
    return ok.get("second", False) if ok.get("first") is False else ok.get("first")
