"""One run of the foreign matrix, judged: beside the best arm, beside its softmax twin, by its alarms and its fix."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Literal, NamedTuple

from stabmon.ab_test.gap import behind_from
from stabmon.divergence import diverged
from stabmon.evaluation.foreign.setup import Split
from stabmon.evaluation.foreign.training import Ended
from stabmon.evaluation.labels import SHARE, SPREADS
from stabmon.evaluation.outcome import WINDOW
from stabmon.evaluation.verdict import Alarm
from stabmon.records import Record, Severity

BEHIND = 0.05
"""Nats behind softmax, or the best arm, from which a run has lost something, where replicates differ by less."""
EARLY = 0.1
"""Share of the steps by which a run that ends behind softmax is to be found."""

Why = Literal["well", "undecided", "failed"]


class Yardstick(NamedTuple):
    """The best arm of a family, and how far a run may be from it."""

    arm: str
    """The best arm."""
    by_seed: dict[int, float]
    noise: float
    """Difference that replicates may have."""
    margin: float
    """Difference from which a run failed."""


class ForeignVerdict(Record):
    """One run, judged."""

    name: str
    family: str
    split: Split
    steps: int
    final: float
    behind_best: float
    behind_softmax: float
    noise: float
    margin: float
    why: Why
    alarms: tuple[Alarm, ...]
    shown_behind: int | None
    """Step at which a race against its softmax twin shows it to be behind (BEH001); None where it never does."""
    fix: str | None = None
    """The first fix, where it was tried."""
    gain: float | None = None
    """Final loss with it less that without."""
    fixed: bool | None = None
    """True if the run with it did not fail; None where it was not tried."""

    @property
    def is_behind(self) -> bool:
        """True if it ended behind its softmax twin."""
        return not self.behind_softmax <= max(BEHIND, self.noise)

    @property
    def harmed(self) -> bool | None:
        """True if the fix made it worse than replicates differ by, or ``BEHIND``; None where it was not tried."""
        return None if self.gain is None else not self.gain <= max(BEHIND, self.noise)

    def has(self, severity: Severity) -> bool:
        """Return whether there was an alarm of at least this severity."""
        return any(alarm.severity.rank >= severity.rank for alarm in self.alarms)


def final(run: Ended) -> float:
    """Return the mean training loss of the last steps; NaN where a loss is not finite."""
    return fmean(run.losses[-WINDOW:]) if all(map(math.isfinite, run.losses)) else math.nan


def yardsticks(runs: Iterable[Ended]) -> dict[str, Yardstick]:
    """Return the yardstick of each family: its best arm, softmax's among them."""
    by_family: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    known = dict[str, float]()
    for run in runs:
        known[run.setup.family] = run.frequencies
        if not _broke(run):
            by_family[run.setup.family][run.setup.arm][run.setup.seed] = final(run)
    return {family: _yardstick(arms, known[family]) for family, arms in by_family.items()}


def verdict(
    run: Ended, twin: Ended, held: Yardstick, alarms: tuple[Alarm, ...], fix: str | None, fixed: Ended | None
) -> ForeignVerdict:
    """Return the verdict on ``run``; ``fixed`` is the run with its first ``fix``, where that was tried."""
    ours, theirs = final(run), final(twin)
    return ForeignVerdict(
        name=run.setup.name,
        family=run.setup.family,
        split=run.setup.split,
        steps=len(run.losses),
        final=ours,
        behind_best=ours - _best(run, held),
        behind_softmax=ours - theirs,
        noise=held.noise,
        margin=held.margin,
        why=_why(run, ours - theirs, held),
        alarms=alarms,
        shown_behind=behind_from(run.losses, twin.losses),
        fix=fix if fixed is not None else None,
        gain=None if fixed is None else final(fixed) - ours,
        fixed=None if fixed is None else _why(fixed, 0.0, held) != "failed",
    )


def _why(run: Ended, behind_softmax: float, held: Yardstick) -> Why:
    behind = final(run) - _best(run, held)
    if _broke(run) or behind > held.margin:
        return "failed"
    return "well" if max(behind, behind_softmax) <= max(BEHIND, held.noise) else "undecided"


def _broke(run: Ended) -> bool:
    return math.isnan(final(run)) or diverged(run.losses, final(run))


def _best(run: Ended, held: Yardstick) -> float:
    return held.by_seed.get(run.setup.seed, fmean(held.by_seed.values()))


def _yardstick(arms: Mapping[str, Mapping[int, float]], frequencies: float) -> Yardstick:
    ranked = sorted(arms, key=lambda arm: fmean(arms[arm].values()))
    best = arms[ranked[0]]
    noise = SPREADS * _spread([arms[arm] for arm in ranked[1 : (len(ranked) + 1) // 2]], best)
    learnt = max(frequencies - fmean(best.values()), 0.0)
    return Yardstick(ranked[0], dict(best), noise, max(noise, SHARE * learnt, BEHIND))


def _spread(arms: Sequence[Mapping[int, float]], best: Mapping[int, float]) -> float:
    """Return the robust standard deviation between replicates, of what they lose to the best arm on the same seed."""
    away = list[float]()
    for arm in arms:
        behind = [loss - best[seed] for seed, loss in arm.items() if seed in best]
        if len(behind) > 1:
            correction = (len(behind) / (len(behind) - 1)) ** 0.5
            away += [abs(value - fmean(behind)) * correction for value in behind]
    return 1.4826 * median(away) if away else 0.0
