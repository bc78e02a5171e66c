"""Training a grid, and judging what is finished: outcomes and samples stay on disk, so both can be done again."""

import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from stabmon.evaluation import outcome as outcomes
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.pool import Pool
from stabmon.evaluation.recorded import STARTS, Recorded, Starts
from stabmon.evaluation.runs import Job, train_recorded
from stabmon.findings.digest import alarming
from stabmon.records import Record
from stabmon.reproduction.arm_group import ArmGroup, name_of, runs
from stabmon.reproduction.claims import ClaimResult, judge
from stabmon.reproduction.grid import Subset, groups_of

CURVE = 60
"""Points of a stored curve of losses."""
RESULT = "reproduce.json"
"""Name of the file that holds a reproduction."""


class ArmResult(Record):
    """The runs of one arm."""

    name: str
    final: dict[int, float]
    """Mean training loss of the last 20 steps, by seed."""
    longer: dict[int, float]
    """Validation loss on longer input, by seed, where that was measured."""
    curve: tuple[float, ...]
    """Mean loss of equal parts of the training, first seed."""
    alarms: dict[int, dict[str, int]]
    """Codes of the warnings and errors, with the first step of each, by seed."""
    seconds: float
    """Mean duration of a training."""


class Reproduction(Record):
    """Every claim of a subset with its verdict, and what the arms ended at."""

    subset: Subset
    device: str
    results: tuple[ClaimResult, ...]
    """Every claim, in the order of the groups."""
    arms: tuple[ArmResult, ...]


def train(
    subset: Subset, folder: Path, *, device: str, jobs: int, minutes: float | None, progress: Callable[[int, int], None]
) -> None:
    """Train what is not finished in ``folder``; begin no run after ``minutes``."""
    until = None if minutes is None else time.time() + 60 * minutes
    wanted = [Job(config, folder / config.name, device) for config in runs(groups_of(subset))]
    given = [(job, until) for job in wanted if outcomes.read(job.folder) is None]
    done = len(wanted) - len(given)
    progress(done, len(wanted))
    with Pool(jobs) as pool:
        for _ in pool.each(_train, given):
            done += 1
            progress(done, len(wanted))


def _train(given: tuple[Job, float | None]) -> None:
    job, until = given
    if until is None or time.time() < until:
        train_recorded(job, Starts(passes=()))


def collect(subset: Subset, folder: Path) -> Reproduction:
    """Return the claims of ``subset``, judged by the runs that are finished in ``folder``."""
    groups = groups_of(subset)
    arms = [_arm(group, arm, folder) for group in groups for arm in group.arms]
    found = {arm.name: arm for arm in arms}
    final = {name: arm.final for name, arm in found.items()}
    longer = {name: arm.longer for name, arm in found.items()}
    claims = (claim for group in groups for claim in group.claims)
    finished = (one for group in groups for arm in group.arms for one in _outcomes(group, arm, folder).values())
    return Reproduction(
        subset=subset,
        device=next((one.device for one in finished), "none"),
        results=tuple(judge(claim, longer if claim.longer else final) for claim in claims),
        arms=tuple(arms),
    )


def _outcomes(group: ArmGroup, arm: str, folder: Path) -> dict[int, Outcome]:
    read = {seed: outcomes.read(folder / name_of(group, arm, seed)) for seed in range(group.seeds)}
    return {seed: one for seed, one in read.items() if one is not None}


def _arm(group: ArmGroup, arm: str, folder: Path) -> ArmResult:
    ended = _outcomes(group, arm, folder)
    return ArmResult(
        name=f"{group.name}.{arm}",
        final={seed: one.final_loss for seed, one in ended.items()},
        longer={seed: one.validation_loss for seed, one in ended.items() if one.validation_loss is not None},
        curve=_curve(next(iter(ended.values())).losses) if ended else (),
        alarms={seed: _alarms(folder / name_of(group, arm, seed)) for seed in ended},
        seconds=sum(one.seconds for one in ended.values()) / max(1, len(ended)),
    )


def _curve(losses: list[float]) -> tuple[float, ...]:
    cuts = [round(i * len(losses) / CURVE) for i in range(CURVE + 1)]
    parts = (losses[first:stop] for first, stop in pairwise(cuts) if stop > first)
    return tuple(sum(part) / len(part) for part in parts)


def _alarms(folder: Path) -> dict[str, int]:
    if not (folder / STARTS).exists():
        return {}
    findings, warned = Recorded(folder).findings_and_warnings()
    return _first((one.code, warned[one.key]) for one in alarming(findings))


def _first(steps: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for code, step in steps:
        found[code] = min(step, found.get(code, step))
    return found
