"""A claim as data, its figure with an interval over seeds, and the verdict. No torch."""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import fmean
from typing import Literal

from stabmon.records import Record

Losses = Mapping[str, Mapping[int, float]]
"""Loss of each arm by seed: at the end of the training or, for claims about longer input, on longer text."""
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % quantiles of Student's t with 1 to 9 degrees of freedom."""


class ClaimVerdict(StrEnum):
    """Answer of a grid to a claim."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    """The interval is wholly on the other side."""
    NOT_SHOWN = "not shown"
    """The interval holds both sides, or there is none."""
    NOT_RUN = "not run"


class Claim(Record):
    """A statement about two sides, each one arm, or one arm at several learning rates."""

    name: str
    says: str
    """The claim in a sentence."""
    source: str
    """Its source, with the grade of that."""
    left: tuple[str, ...]
    right: tuple[str, ...]
    expect: Literal["lower", "level"] = "lower"
    """The relation to be shown: the left figure is the lower, or within ``margin`` of the right one."""
    margin: float = 0.05
    """Largest difference in nats that is called level: a tenth of what the harm of a wrong bias is."""
    longer: bool = False
    """True if losses are those of the validation on longer input."""
    sensitivity: bool = False
    """True if the figure is the mean over rates of the loss above that of the best rate (arXiv 2309.14322)."""


class ClaimResult(Record):
    """A claim with its figure: left less right, a mean over seeds with its 95 % interval; NaN where there is none."""

    claim: Claim
    seeds: int
    left: float
    right: float
    mean: float
    low: float
    high: float
    verdict: ClaimVerdict


def judge(claim: Claim, losses: Losses) -> ClaimResult:
    """Return the figure of ``claim`` over the seeds of which every arm is there, and its verdict."""
    seeds = sorted(set.intersection(*(set(losses.get(arm, {})) for arm in (*claim.left, *claim.right))))
    left, right = ([_figure(claim, side, losses, seed) for seed in seeds] for side in (claim.left, claim.right))
    mean, low, high = interval([one - other for one, other in zip(left, right, strict=True)])
    return ClaimResult(
        claim=claim,
        seeds=len(seeds),
        left=fmean(left) if left else math.nan,
        right=fmean(right) if right else math.nan,
        mean=mean,
        low=low,
        high=high,
        verdict=_verdict(claim, low, high) if seeds else ClaimVerdict.NOT_RUN,
    )


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % interval by Student's t of at most ten values; NaN for what there is none of."""
    if not values or not all(map(math.isfinite, values)):
        return math.nan, math.nan, math.nan
    mean, count = fmean(values), len(values)
    if count == 1:
        return mean, math.nan, math.nan
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    half = STUDENT[min(count - 1, len(STUDENT)) - 1] * math.sqrt(variance / count)
    return mean, mean - half, mean + half


def _figure(claim: Claim, arms: Sequence[str], losses: Losses, seed: int) -> float:
    found = [losses[arm][seed] for arm in arms]
    return fmean(found) - min(found) if claim.sensitivity else fmean(found)


def _verdict(claim: Claim, low: float, high: float) -> ClaimVerdict:
    lower, upper = (-math.inf, 0.0) if claim.expect == "lower" else (-claim.margin, claim.margin)
    if low > lower and high < upper:
        return ClaimVerdict.REPRODUCED
    return ClaimVerdict.NOT_REPRODUCED if low > upper or high < lower else ClaimVerdict.NOT_SHOWN
