"""A metric over steps as an SVG: a line a layer, a break where nothing was measured, a mark where it is not finite."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.formatting import number
from stabmon.series import Series, is_missing, worst

WIDTH, HEIGHT = 680, 230
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 28
LOGARITHMIC = 50.0
"""Ratio of the largest to the smallest number from which the axis is logarithmic, where all are positive."""
TICKS = 5
NAMED = 6
"""Most lines that are named; of more the first and the last are."""


class Axis(NamedTuple):
    """A range of numbers on a line of pixels."""

    low: float
    high: float
    start: float
    end: float
    is_logarithmic: bool = False

    def at(self, value: float) -> float:
        """Return the pixel of ``value``."""
        low, high, value = (math.log10(x) if self.is_logarithmic else x for x in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[float]:
        """Return round numbers in the range, or the powers of ten in it."""
        if self.is_logarithmic:
            powers = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1)
            return [10.0**power for power in [*powers][:: max(1, len(powers) // TICKS)]]
        rough = (self.high - self.low) / TICKS
        size = 10.0 ** math.floor(math.log10(rough))
        step = size * next(factor for factor in (1, 2, 5, 10) if factor * size >= rough)
        return [step * index for index in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def chart(series: Series, title: str) -> str:
    """Return ``series`` as an SVG; a point that stands for several samples is the one furthest from healthy."""
    shown = worst(series)
    finite = shown.values[np.isfinite(shown.values)]
    name = escape(title)
    head = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}"><title>{name}</title>'
    if not len(finite):
        return f'{head}<text x="{LEFT}" y="{HEIGHT / 2}">no finite number</text></svg>'
    across = Axis(float(shown.steps[0]), float(max(shown.steps[-1], shown.steps[0] + 1)), LEFT, WIDTH - RIGHT)
    up = _vertical(finite)
    parts = [*_grid(across, up), *_lines(shown, across, up), *_names(shown)]
    return f"{head}{''.join(parts)}</svg>"


def _vertical(finite: npt.NDArray[np.float32]) -> Axis:
    low, high = float(finite.min()), float(finite.max())
    if low > 0 and high / low > LOGARITHMIC:
        return Axis(low, high, HEIGHT - BOTTOM, TOP, is_logarithmic=True)
    room = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    return Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)


def _grid(across: Axis, up: Axis) -> Iterator[str]:
    for value in up.ticks():
        y = up.at(value)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>'
    for value in across.ticks():
        yield f'<text x="{across.at(value):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{number(value, 6)}</text>'


def _lines(series: Series, across: Axis, up: Axis) -> Iterator[str]:
    pixels = [across.at(step) for step in series.steps.tolist()]
    missing = is_missing(series.values)
    for at in range(len(series.spots)):
        own = series.values[:, at]
        points = [
            f"{x:.1f} {up.at(value):.1f}" if math.isfinite(value) else ""
            for x, value in zip(pixels, own.tolist(), strict=True)
        ]
        yield f'<path class="line" stroke="{colour(at, len(series.spots))}" d="{_path(points)}"/>'
        odd = np.flatnonzero(~np.isfinite(own) & ~missing[:, at])
        marks = "".join(f"M{pixels[row]:.1f} {TOP}v8" for row in odd.tolist())
        yield f'<path class="odd" d="{marks}"/>' if marks else ""


def _path(points: Sequence[str]) -> str:
    """Return a path through ``points``; an empty one breaks it, and a point alone is a dot."""
    runs = " ".join(point or "|" for point in points).split("|")
    parts = [run.split() for run in runs if run.strip()]
    return "".join(f"M{' '.join(part[:2])}" + (f"L{' '.join(part[2:])}" if part[2:] else "h.1") for part in parts)


def _names(series: Series) -> Iterator[str]:
    layers = [spot.layer for spot in series.spots]
    if len(layers) == 1:
        return
    shown = range(len(layers)) if len(layers) <= NAMED else (0, len(layers) - 1)
    for row, at in enumerate(shown):
        y = TOP + 14 * (row + 1)
        fill = colour(at, len(layers))
        yield f'<text x="{WIDTH - RIGHT}" y="{y}" text-anchor="end" fill="{fill}">{escape(str(layers[at]))}</text>'


def colour(at: int, count: int) -> str:
    """Return the colour of a layer by its depth: blue for the first, over green, to red for the last."""
    return f"hsl({220 - 220 * at / max(count - 1, 1):.0f} 70% 42%)"
