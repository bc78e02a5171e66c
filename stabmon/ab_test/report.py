"""The outcome of a trial: both sides, their difference with an interval over seeds, and the verdict in a sentence."""

import math
from collections.abc import Sequence
from enum import StrEnum
from statistics import fmean, stdev

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scipy.special import stdtrit

from stabmon.divergence import diverged
from stabmon.findings import Finding
from stabmon.findings.digest import advice, alarming, in_order
from stabmon.fixes.change import Applied
from stabmon.fixes.record import Fix
from stabmon.formatting import number, signed
from stabmon.names import span
from stabmon.notebook import html
from stabmon.records import Record
from stabmon.terminal import text_of

FINAL = 20
"""Steps at the end whose mean loss is compared; a quarter of the trial where that is less."""


class Interval(Record):
    """A mean over seeds with its 95 % interval by Student's t; the ends are NaN for a single seed."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Interval":
        """Return the interval of ``values``, one a seed; NaN where one is not finite or there is none."""
        if not values or not all(map(math.isfinite, values)):
            return cls(mean=math.nan, low=math.nan, high=math.nan)
        mean, freedom = fmean(values), len(values) - 1
        if freedom == 0:
            return cls(mean=mean, low=math.nan, high=math.nan)
        half = float(stdtrit(freedom, 0.975)) * stdev(values) / math.sqrt(len(values))
        return cls(mean=mean, low=mean - half, high=mean + half)


class Arm(Record):
    """One side of a trial."""

    losses: tuple[tuple[float, ...], ...]
    """Loss of each step, for each seed."""
    final: tuple[float, ...]
    """Mean loss of the last steps, for each seed."""
    diverged: int
    """Number of seeds that diverged, as ``stabmon.divergence`` defines it."""
    findings: tuple[Finding, ...]
    """Findings of the rules with the first seed."""

    @classmethod
    def of(cls, losses: Sequence[Sequence[float]], findings: Sequence[Finding]) -> "Arm":
        """Return the arm with these losses, for each seed of each step."""
        final = tuple(fmean(seed[-max(1, min(FINAL, len(seed) // 4)) :]) for seed in losses)
        count = sum(diverged(seed, last) for last, seed in zip(final, losses, strict=True))
        rows = tuple(tuple(seed) for seed in losses)
        return cls(losses=rows, final=final, diverged=count, findings=tuple(findings))

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of the warnings and errors, each once, in the digest's order."""
        return tuple(dict.fromkeys(finding.code for finding in alarming(in_order(self.findings))))


class Conclusion(StrEnum):
    """The outcome of a trial."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "unclear"


class TrialReport(Record):
    """The outcome of a trial; ``print`` it, or ``model_dump_json`` it."""

    fixes: tuple[Fix, ...]
    applied: tuple[Applied, ...]
    """Changes made in place; empty where the fix is one of the training."""
    diff: str
    """Difference between the two configurations, or in the user's code."""
    steps: int
    seeds: int
    without: Arm
    with_fix: Arm
    difference: Interval
    """Final loss with the fix less that without it, seed by seed: below 0 the fix is better."""
    verdict: Conclusion
    sentence: str

    @classmethod
    def of(
        cls, fixes: Sequence[Fix], applied: Sequence[Applied], diff: str, without: Arm, with_fix: Arm
    ) -> "TrialReport":
        """Return the report of both sides."""
        pairs = zip(with_fix.final, without.final, strict=True)
        difference = Interval.of([fixed - plain for fixed, plain in pairs])
        verdict = _judge(difference, without, with_fix)
        steps, seeds = len(without.losses[0]), len(without.final)
        return cls(
            fixes=tuple(fixes),
            applied=tuple(applied),
            diff=diff,
            steps=steps,
            seeds=seeds,
            without=without,
            with_fix=with_fix,
            difference=difference,
            verdict=verdict,
            sentence=f"{_ADVICE[verdict]}: {_why(difference, without, with_fix, steps)}.",
        )

    def table(self) -> Table:
        """Return both sides as columns."""
        table = Table("", "as it is", "with the fix", box=SIMPLE_HEAD, title="Side by side", title_justify="left")
        arms = (self.without, self.with_fix)
        for name, at in _shown_steps(self.steps):
            table.add_row(name, *(number(fmean(seed[at] for seed in arm.losses), 4) for arm in arms))
        table.add_row("final loss, mean", *(number(fmean(arm.final), 4) for arm in arms))
        table.add_row("seeds that diverged", *(f"{arm.diverged} of {self.seeds}" for arm in arms))
        table.add_row("findings", *("\n".join(arm.codes) or "none" for arm in arms))
        return table

    def __rich__(self) -> Group:
        where = span(fix.module for fix in self.fixes if fix.module) or "the training"
        parts = [Text(f"On trial in {where}: {advice(self.fixes[0])}")]
        parts += [Text(f"Changed: {self.applied[0].changed}.")] if self.applied else []
        return Group(*parts, Text(self.diff), self.table(), Text(self.sentence, style="bold"))

    def _repr_html_(self) -> str:
        return html(self.__rich__())

    def __str__(self) -> str:
        return text_of(self)


_ADVICE = {Conclusion.BETTER: "Take it", Conclusion.WORSE: "Leave it", Conclusion.UNCLEAR: "Too close to call"}


def _shown_steps(steps: int) -> list[tuple[str, int]]:
    at = sorted({0, steps // 4, steps // 2, 3 * steps // 4, steps - 1})
    return [(f"loss at step {step}", step) for step in at]


def _judge(difference: Interval, without: Arm, with_fix: Arm) -> Conclusion:
    if with_fix.diverged != without.diverged:
        return Conclusion.WORSE if with_fix.diverged > without.diverged else Conclusion.BETTER
    if difference.high < 0:
        return Conclusion.BETTER
    return Conclusion.WORSE if difference.low > 0 else Conclusion.UNCLEAR


def _why(difference: Interval, without: Arm, with_fix: Arm, steps: int) -> str:
    seeds = len(without.final)
    parts = []
    if with_fix.diverged or without.diverged:
        parts.append(f"{without.diverged} of {seeds} runs diverge without it and {with_fix.diverged} with it")
    if math.isfinite(difference.mean):
        parts.append(f"after {steps} steps the loss is {_moved(difference.mean)} with it{_over(difference, seeds)}")
    gone = [code for code in without.codes if code not in with_fix.codes]
    new = [code for code in with_fix.codes if code not in without.codes]
    parts += [f"{', '.join(gone)} gone"] if gone else []
    parts += [f"{', '.join(new)} new"] if new else []
    return "; ".join(parts) or "neither side gives a number"


def _moved(mean: float) -> str:
    return f"{number(abs(mean))} {'lower' if mean < 0 else 'higher'}" if mean else "the same"


def _over(difference: Interval, seeds: int) -> str:
    if seeds == 1:
        return " (one seed, so nothing says how much of that is chance)"
    return f" (95 % interval {signed(difference.low)} to {signed(difference.high)} over {seeds} seeds)"
