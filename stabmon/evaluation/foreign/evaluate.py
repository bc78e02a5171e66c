"""``stabmon evaluate --families foreign``: train what is missing, judge by replay, try first fixes, judge again."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from stabmon.errors import ConfigError
from stabmon.evaluation.foreign import report as reports
from stabmon.evaluation.foreign import training
from stabmon.evaluation.foreign.report import ForeignReport
from stabmon.evaluation.foreign.setup import FAMILIES, Setup, Size, Split, setups, with_fix
from stabmon.evaluation.foreign.training import Ended, ForeignJob
from stabmon.evaluation.foreign.verdicts import ForeignVerdict, verdict, yardsticks
from stabmon.evaluation.outcome import WINDOW
from stabmon.evaluation.pool import Pool
from stabmon.evaluation.recorded import Recorded
from stabmon.evaluation.repairs import first_fix
from stabmon.evaluation.verdict import Alarm, alarms
from stabmon.fixes.record import Fix
from stabmon.rules import Limits

Progress = Callable[[str, int, int], None]


class Judged(NamedTuple):
    """Alarms of one run, and its first fix."""

    name: str
    alarms: tuple[Alarm, ...]
    fix: Fix | None


class Folder(NamedTuple):
    """Folder of a matrix's runs, the device that trains them, and the limits that judge them."""

    path: Path
    device: str
    limits: Limits

    def of(self, setup: Setup) -> Path:
        """Return the folder of a run; one with a fix has its settings in its name."""
        name = setup.name
        if "+" in setup.arm:
            name = f"{name}.{sha256(setup.model_dump_json().encode()).hexdigest()[:8]}"
        return self.path / setup.split / name

    def ended(self, setup: Setup) -> Ended | None:
        """Return how a run ended, or None where it is not finished.

        Raises:
            ConfigError: the folder holds a run of this name with other settings, such as another size.
        """
        found = training.read(self.of(setup))
        if found is not None and found.setup != setup:
            was, wanted = found.setup, setup
            raise ConfigError(
                f"{self.of(setup)} holds a run of width {was.width} with {was.steps} steps, and width {wanted.width} "
                f"with {wanted.steps} steps was asked for: give the same --subset and --steps, or another --dir"
            )
        return found


def evaluate(
    size: Size, folder: Folder, *, jobs: int, progress: Progress, replay: bool = False
) -> tuple[ForeignReport, ...]:
    """Return the report of each split, and store it beside its runs. replay: train nothing, judge what is there."""
    wanted = setups(size)
    with Pool(jobs) as pool:
        if not replay:
            _train("training", wanted, folder, pool, progress)
        ended = {one.setup.name: one for one in map(folder.ended, wanted) if one is not None}
        judged = {
            one.name: one
            for one in pool.each(
                partial(_judge, folder=folder), [one for one in ended.values() if one.setup.attention == "sigmoid"]
            )
        }
        fixed = {name: _fixed(ended[name].setup, one) for name, one in judged.items()}
        interesting = [fixed[one.name] for one in _verdicts(ended, judged, {}, folder) if _is_tried(one)]
        if not replay:
            _train("fixing", [one for one in interesting if one is not None], folder, pool, progress)
    found = _verdicts(ended, judged, fixed, folder)
    return tuple(_report(split, found, ended, folder) for split in dict.fromkeys(FAMILIES.values()))


def _is_tried(one: ForeignVerdict) -> bool:
    """Return whether its first fix is tried: it failed, or it ended well and was alarmed."""
    return one.why == "failed" or (one.why == "well" and bool(one.alarms))


def _verdicts(
    ended: Mapping[str, Ended], judged: Mapping[str, Judged], fixed: Mapping[str, Setup | None], folder: Folder
) -> list[ForeignVerdict]:
    held = yardsticks(ended.values())
    found = []
    for name, one in judged.items():
        run, setup = ended[name], fixed.get(name)
        twin = ended.get(run.setup.twin)
        if twin is not None:
            after = None if setup is None else folder.ended(setup)
            kind = None if one.fix is None else str(one.fix)
            found.append(verdict(run, twin, held[run.setup.family], one.alarms, kind, after))
    return sorted(found, key=lambda one: one.name)


def _fixed(setup: Setup, judged: Judged) -> Setup | None:
    return None if judged.fix is None else with_fix(setup, judged.fix)


def _judge(run: Ended, folder: Folder) -> Judged:
    recorded = Recorded(folder.of(run.setup))
    at_start = recorded.at_the_start(folder.limits)
    in_samples, warned = recorded.findings_and_warnings(folder.limits)
    first = first_fix((*at_start, *in_samples), warned)
    return Judged(run.setup.name, alarms(at_start, in_samples, warned), None if first is None else first[1])


def _train(what: str, wanted: Sequence[Setup], folder: Folder, pool: Pool, progress: Progress) -> None:
    missing = [one for one in wanted if folder.ended(one) is None]
    done = len(wanted) - len(missing)
    progress(what, done, len(wanted))
    jobs = [ForeignJob(one, folder.of(one), folder.device) for one in missing]
    for _ in pool.each(training.record, jobs):
        done += 1
        progress(what, done, len(wanted))


def _report(split: Split, found: Sequence[ForeignVerdict], ended: Mapping[str, Ended], folder: Folder) -> ForeignReport:
    own = tuple(one for one in found if one.split == split)
    agreement = {family: _agreement(family, ended) for family, of in FAMILIES.items() if of == split}
    report = ForeignReport(split=split, device=folder.device, verdicts=own, agreement=agreement)
    (folder.path / split).mkdir(parents=True, exist_ok=True)
    reports.write(report, folder.path / split)
    return report


def _agreement(family: str, ended: Mapping[str, Ended]) -> float:
    """Return the share of pairs of arms whose order at half the steps is that at the end, mean losses over seeds."""
    arms: dict[str, list[tuple[float, float]]] = {}
    for one in ended.values():
        if one.setup.family == family:
            middle = len(one.losses) // 2
            ends = fmean(one.losses[max(0, middle - WINDOW) : middle]), fmean(one.losses[-WINDOW:])
            arms.setdefault(one.setup.arm, []).append(ends)
    means = [(fmean(half for half, _ in runs), fmean(end for _, end in runs)) for runs in arms.values()]
    pairs = [(one[0] < other[0]) == (one[1] < other[1]) for one, other in combinations(means, 2)]
    return sum(pairs) / len(pairs) if pairs else float("nan")
