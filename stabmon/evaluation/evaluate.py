"""``stabmon evaluate``: train the matrix, label, replay, fix, judge; what is finished is never done twice."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from stabmon.evaluation import judge, outcome, repairs, report, tuning
from stabmon.evaluation.judge import Ends, Repaired, RunFindings
from stabmon.evaluation.labels import label
from stabmon.evaluation.matrix import MatrixRun, halves
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.pool import Pool
from stabmon.evaluation.recorded import Recorded
from stabmon.evaluation.repairs import Repair
from stabmon.evaluation.report import Evaluation
from stabmon.evaluation.runs import Job, record
from stabmon.rules import Limits

Given = TypeVar("Given")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Execution(NamedTuple):
    """Folder and options of an evaluation."""

    folder: Path
    device: str
    jobs: int
    progress: Progress

    @property
    def runs(self) -> Path:
        """Folder of the matrix's own runs."""
        return self.folder / "runs"

    @property
    def fixed(self) -> Path:
        """Folder of the runs with a fix."""
        return self.folder / "fixed"


def evaluate(
    runs: Sequence[MatrixRun], execution: Execution, limits: Limits, *, tune: bool = False, apply_fixes: bool = True
) -> Evaluation:
    """Evaluate ``runs`` and store it.

    limits: thresholds to judge with, or to begin the search at.
    tune: whether thresholds are searched on the tuning half; they are written beside the result.
    apply_fixes: whether failed runs are trained again with their first fix; without it, those of before count.
    """
    with Pool(execution.jobs) as pool:
        outcomes = train(runs, execution, pool)
        ended = judge.ends(runs, outcomes)
        if tune:
            limits = tuning.tune(_tuning_half(runs, ended, execution), limits, pool)
            tuning.write(limits, execution.folder)
        found = judge.find(outcomes.values(), execution.runs, limits, pool)
        wanted = repairs_of(outcomes, ended, found, execution.fixed)
        if apply_fixes:
            _do(repairs.carry_out, _open(wanted), "fixing", len(wanted), execution, pool)
        second = second_repairs(wanted, outcomes, ended, limits)
        if apply_fixes:
            _do(repairs.carry_out, _open(second), "fixing again", len(second), execution, pool)
    evaluation = Evaluation(
        device=execution.device,
        versions=next(iter(found.values())).versions if found else {},
        limits=limits.differences,
        spreads=ended.spreads,
        verdicts=judge.verdicts(runs, outcomes, ended, found, repaired([*wanted, *second])),
    )
    report.write(evaluation, execution.folder)
    return evaluation


def train(runs: Sequence[MatrixRun], execution: Execution, pool: Pool) -> dict[str, Outcome]:
    """Train what is not finished, and return every outcome, in the matrix's order."""
    jobs = [Job(run.config, execution.runs / run.name, execution.device) for run in runs]
    _do(record, [job for job in jobs if outcome.read(job.folder) is None], "training", len(jobs), execution, pool)
    return {job.config.name: _read(job.folder) for job in jobs}


def repairs_of(
    outcomes: Mapping[str, Outcome], ended: Ends, found: Mapping[str, RunFindings], folder: Path
) -> list[Repair]:
    """Return what is to be trained again with its first fix: every failed run, from step 0 first, then live."""
    failed = [name for name, end in ended.labels.items() if end.failed]
    wanted = [one for name in failed for one in _repairs(outcomes[name], found[name], folder)]
    return sorted(wanted, key=lambda one: one.step is not None)


def second_repairs(
    wanted: Iterable[Repair], outcomes: Mapping[str, Outcome], ended: Ends, limits: Limits | None
) -> list[Repair]:
    """Return the second fixes: of what failed with its first fix from step 0, the first one that is named then."""
    found = []
    for first in wanted:
        fixed = outcome.read(first.job.folder) if first.step is None else None
        if fixed is not None and label(fixed, ended.references.get(outcomes[first.run].group)).failed:
            recorded = Recorded(first.job.folder)
            in_samples, warned = recorded.findings_and_warnings(limits)
            found.append(repairs.again(first, fixed, (*recorded.at_the_start(limits), *in_samples), warned))
    return [one for one in found if one is not None]


def _repairs(run: Outcome, found: RunFindings, folder: Path) -> list[Repair]:
    both = (
        repairs.from_start(run, (*found.at_start, *found.in_samples), folder, found.warned),
        repairs.live(run, found.in_samples, folder, found.warned),
    )
    return [one for one in both if one is not None]


def _open(wanted: Sequence[Repair]) -> list[Repair]:
    return [one for one in wanted if outcome.read(one.job.folder) is None]


def repaired(wanted: Iterable[Repair]) -> list[Repaired]:
    """Return the outcomes of the repairs that were run."""
    return [Repaired(one.run, one.fix, one.how, outcome.read(one.job.folder)) for one in wanted]


def _tuning_half(runs: Sequence[MatrixRun], ended: Ends, execution: Execution) -> list[tuning.Tried]:
    half = halves({run.configuration: run.kind for run in runs})
    return [
        tuning.Tried(execution.runs / run.name, ended.labels[run.name].failed)
        for run in runs
        if half[run.configuration] == "tuning"
    ]


def _do(
    task: Callable[[Given], Outcome], given: Sequence[Given], what: str, total: int, execution: Execution, pool: Pool
) -> None:
    done = total - len(given)
    execution.progress(what, done, total)
    for _ in pool.each(task, given):
        done += 1
        execution.progress(what, done, total)


def _read(folder: Path) -> Outcome:
    found = outcome.read(folder)
    assert found is not None, folder
    return found
