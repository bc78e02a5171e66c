"""The outcome of a race against the softmax twin: both losses, the gap with an interval over seeds, and recipes."""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import fmean

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from stabmon.ab_test.report import FINAL, Interval
from stabmon.formatting import number, plural, signed
from stabmon.records import Record

Losses = tuple[tuple[float, ...], ...]


class Standing(StrEnum):
    """Standing of sigmoid at the end of a race."""

    BEHIND = "behind"
    AHEAD = "ahead"
    LEVEL = "level"
    """The interval of the gap holds 0: no difference was shown."""


class Recipe(Record):
    """A change of the sigmoid model that ran the same race."""

    name: str
    losses: Losses
    gap: Interval
    """Final loss with the recipe less that of the softmax twin, seed by seed."""
    gain: Interval
    """Final loss with the recipe less that of sigmoid as it is: below 0 the recipe is better."""

    @property
    def helps(self) -> bool:
        """True if it lowered the final loss beyond the interval."""
        return self.gain.high < 0


class RaceReport(Record):
    """The outcome of a race; ``print`` it, or ``model_dump_json`` it."""

    steps: int
    seeds: int
    sigmoid: Losses
    """Loss of each step, for each seed."""
    softmax: Losses
    gap: Interval
    """Final loss of sigmoid less that of softmax, seed by seed: above 0 sigmoid is behind."""
    standing: Standing
    shown_from: int | None
    """Steps after which the interval of the gap is on its final side of 0 and stays there; None where it is not."""
    recipes: tuple[Recipe, ...] = ()
    sentence: str

    @classmethod
    def of(cls, sigmoid: Losses, softmax: Losses, recipes: Mapping[str, Losses]) -> "RaceReport":
        """Return the report of losses of each step, for each seed."""
        gap = _difference(sigmoid, softmax)
        standing = _standing(gap)
        shown = None if standing is Standing.LEVEL else _shown_from(sigmoid, softmax, standing)
        tried = tuple(
            Recipe(name=name, losses=losses, gap=_difference(losses, softmax), gain=_difference(losses, sigmoid))
            for name, losses in recipes.items()
        )
        return cls(
            steps=len(sigmoid[0]),
            seeds=len(sigmoid),
            sigmoid=sigmoid,
            softmax=softmax,
            gap=gap,
            standing=standing,
            shown_from=shown,
            recipes=tried,
            sentence=_sentence(gap, standing, shown, len(sigmoid[0]), len(sigmoid)),
        )

    @property
    def best(self) -> Recipe | None:
        """The recipe that measurably closed most of the gap, or None where none did."""
        return min((one for one in self.recipes if one.helps), key=lambda one: one.gain.mean, default=None)

    def table(self) -> Table:
        """Return the final losses, one contestant a row."""
        table = Table("", "final loss", "behind softmax", "gain", box=SIMPLE_HEAD)
        table.add_row("softmax", number(_mean_final(self.softmax), 4), "", "")
        table.add_row("sigmoid", number(_mean_final(self.sigmoid), 4), _range(self.gap), "")
        for one in self.recipes:
            table.add_row(f"with {one.name}", number(_mean_final(one.losses), 4), _range(one.gap), _range(one.gain))
        return table

    def __rich__(self) -> Group:
        best = self.best
        words = "" if best is None else f" Best recipe: {best.name}, {signed(best.gain.mean)} nats."
        return Group(self.table(), Text(f"{self.sentence}{words}", style="bold"))

    def __str__(self) -> str:
        from stabmon.terminal import text_of

        return text_of(self)


def final(losses: Sequence[float]) -> float:
    """Return the mean loss of the last steps, as a trial has it."""
    return fmean(losses[-_window(len(losses)) :])


def _window(steps: int) -> int:
    return max(1, min(FINAL, steps // 4))


def _mean_final(losses: Losses) -> float:
    return fmean(final(seed) for seed in losses)


def _difference(ours: Losses, theirs: Losses) -> Interval:
    return Interval.of([final(one) - final(other) for one, other in zip(ours, theirs, strict=True)])


def _standing(gap: Interval) -> Standing:
    if gap.low > 0 or (math.isnan(gap.mean)):
        return Standing.BEHIND
    return Standing.AHEAD if gap.high < 0 else Standing.LEVEL


def _shown_from(sigmoid: Losses, softmax: Losses, standing: Standing) -> int | None:
    """Return the first number of steps from which each interval of the running gap is on the side of ``standing``."""
    gaps = np.asarray(sigmoid, dtype=np.float64) - np.asarray(softmax, dtype=np.float64)
    steps, window = gaps.shape[1], _window(gaps.shape[1])
    shown = None
    for count in range(steps, window - 1, -1):
        running = gaps[:, count - window : count].mean(1).tolist()
        if _standing(Interval.of(running)) is not standing:
            break
        shown = count
    return shown


def _range(interval: Interval) -> str:
    if math.isnan(interval.low):
        return signed(interval.mean)
    return f"{signed(interval.mean)} [{signed(interval.low)}, {signed(interval.high)}]"


def _sentence(gap: Interval, standing: Standing, shown: int | None, steps: int, seeds: int) -> str:
    if math.isnan(gap.mean):
        return f"Within {plural(steps, 'step')} one of the two stopped giving a finite loss"
    size, over = f"{number(abs(gap.mean))} nats", f"after {plural(steps, 'step')} over {plural(seeds, 'seed')}"
    if seeds == 1:
        side = "behind" if gap.mean > 0 else "ahead of"
        return f"Sigmoid is {size} {side} its softmax twin {over}; one seed does not say how much of that is chance."
    if standing is Standing.LEVEL:
        return f"No difference from the softmax twin is shown {over}: {_range(gap)} nats."
    side = "behind" if standing is Standing.BEHIND else "ahead of"
    since = "" if shown is None else f", as is clear from step {shown} on"
    return f"Sigmoid is {size} {side} its softmax twin {over}{since}."
