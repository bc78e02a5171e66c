"""A rule's reference runs as SVG: two panels with one scale, logarithmic where the values span more than a decade."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from stabmon.formatting import number, words
from stabmon.rules.gallery.stored_runs import Curves, ReferenceRuns
from stabmon.rules.registry import find

WIDTH, HEIGHT = 720, 250
PANEL, TOP, BOTTOM, LEFT, GAP = 300, 62, 212, 56, 32
COLOURS = ("#3b6fb6", "#c05a2b", "#2f8a5b", "#8a5bb0", "#5b6b7a", "#b08a1f")
"""Blue, orange, green, violet, grey, ochre: apart for colour-blind readers by lightness too."""
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#808890}.head{font-weight:600}.small{font-size:11px}"
    ".axis{stroke:#808890;stroke-opacity:.35}.limit{stroke:#d03838;stroke-dasharray:5 4}"
    ".line{fill:none;stroke-width:1.6}"
)


class _Scale(NamedTuple):
    """From a value to a height in the panel."""

    low: float
    high: float
    is_log: bool

    def __call__(self, value: float) -> float:
        value = max(value, self.low) if self.is_log else value
        low, high, at = (math.log10(v) for v in (self.low, self.high, value)) if self.is_log else (*self[:2], value)
        return BOTTOM - (BOTTOM - TOP) * (min(max(at, low), high) - low) / (high - low)


def draw(runs: ReferenceRuns) -> str:
    """Return the picture of ``runs`` as the text of an SVG file."""
    scale = _scale(runs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(_title(runs))}</title><style>{_STYLE}</style>",
        f'<text class="head" x="{LEFT}" y="18">{escape(_title(runs))}</text>',
    ]
    for index, (word, curves) in enumerate((("bad", runs.bad), ("good", runs.good))):
        parts += _panel(runs, curves, word, LEFT + index * (PANEL + GAP), scale)
    return "\n".join([*parts, "</svg>", ""])


def _title(runs: ReferenceRuns) -> str:
    return f"{runs.code} {find(runs.code).name}: {words(runs.metric)}"


def _scale(runs: ReferenceRuns) -> _Scale:
    values = [v for curves in (runs.bad, runs.good) for line in curves.lines.values() for v in line if v is not None]
    values += [runs.limit] if runs.limit is not None else []
    positive = [value for value in values if value > 0]
    if len(positive) == len(values) and max(positive) > 10 * min(positive):
        low, high = min(positive), max(positive)
        return _Scale(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)), is_log=True)
    step = _round_up(max(values) / 4)
    return _Scale(0.0, 4 * step, is_log=False)


def _round_up(value: float) -> float:
    """Return the next of 1, 1.5, 2, 2.5, 3, 4, 5, 8 and 10 times a power of ten that is not below ``value``."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(part for part in (1, 1.5, 2, 2.5, 3, 4, 5, 8, 10) if part * power >= value) * power


def _panel(runs: ReferenceRuns, curves: Curves, word: str, left: float, scale: _Scale) -> Iterator[str]:
    """Yield the axes, the limit and the lines of one run."""
    ending = "" if curves.loss is None else f", ends at {curves.loss:.2f} nats"
    yield f'<text class="head" x="{left}" y="38">{word}{escape(ending)}</text>'
    yield f'<text class="small" x="{left}" y="53">{escape(curves.about)}</text>'
    for value in _ticks(scale):
        y = scale(value)
        yield f'<line class="axis" x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>'
        if word == "bad":
            yield f'<text class="small" text-anchor="end" x="{left - 5}" y="{y + 4:.1f}">{escape(number(value))}</text>'
    if runs.limit is not None:
        y = scale(runs.limit)
        yield f'<line class="limit" x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}"/>'
    for at, name in enumerate(curves.lines):
        yield from _line(curves, name, left, scale, COLOURS[at % len(COLOURS)])
    first, last = curves.steps[0], curves.steps[-1]
    yield f'<text class="small" x="{left}" y="{BOTTOM + 15}">{escape(runs.across)} {first:g}</text>'
    yield f'<text class="small" text-anchor="end" x="{left + PANEL}" y="{BOTTOM + 15}">{last:g}</text>'
    names = list(curves.lines)
    words = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
    yield f'<text class="small" text-anchor="middle" x="{left + PANEL / 2}" y="{BOTTOM + 15}">{escape(words)}</text>'


def _line(curves: Curves, name: str, left: float, scale: _Scale, colour: str) -> Iterator[str]:
    """Yield one line, broken where nothing was measured; a lone value is a dot."""
    first, last = curves.steps[0], curves.steps[-1]
    piece: list[str] = []
    for step, value in zip((*curves.steps, last), (*curves.lines[name], None), strict=True):
        if value is not None:
            piece.append(f"{left + PANEL * (step - first) / (last - first or 1):.1f},{scale(value):.1f}")
        elif len(piece) > 1:
            yield f'<polyline class="line" stroke="{colour}" points="{" ".join(piece)}"/>'
            piece = []
        elif piece:
            x, y = piece.pop().split(",")
            yield f'<circle r="2.5" fill="{colour}" cx="{x}" cy="{y}"/>'


def _ticks(scale: _Scale) -> Sequence[float]:
    if not scale.is_log:
        return [scale.low + (scale.high - scale.low) * part / 4 for part in range(5)]
    first, last = round(math.log10(scale.low)), round(math.log10(scale.high))
    return [10.0**power for power in range(first, last + 1, max(1, (last - first) // 5))]
