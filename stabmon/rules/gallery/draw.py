"""A rule's reference runs as SVG, by matplotlib: two panels with one scale, in colours for light and dark pages."""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from stabmon.formatting import number, words
from stabmon.rules.gallery.stored_runs import Curves, ReferenceRuns
from stabmon.rules.registry import find

COLOURS = ("#3b6fb6", "#c05a2b", "#2f8a5b", "#8a5bb0", "#5b6b7a", "#b08a1f")
"""Blue, orange, green, violet, grey, ochre: also different in lightness, for colour-blind readers."""
GREY, LIMIT = "#808890", "#d03838"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "stabmon",  # the same picture is the same file
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "xtick.major.size": 2,
    "ytick.major.size": 0,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.2,
}


def draw(runs: ReferenceRuns) -> str:
    """Return the picture of ``runs`` as the text of an SVG file: the same text for the same runs."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 2.9), layout="constrained")
        figure.suptitle(_title(runs), x=0.01, ha="left", fontsize=10, fontweight="bold")
        panels: Sequence[Axes] = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, word, curves in zip(panels, ("bad", "good"), (runs.bad, runs.good), strict=True):
            _panel(axes, runs, curves, word)
        _scale(panels[0], runs)
        if len(panels[0].lines) > 1:
            lines = panels[0].get_legend_handles_labels()
            figure.legend(
                *lines, loc="upper right", ncols=6, frameon=False, fontsize=8, handlelength=1, columnspacing=1
            )
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": _title(runs)}
        )
    return _shortened(buffer.getvalue())


def _title(runs: ReferenceRuns) -> str:
    return f"{runs.code} {find(runs.code).name}: {words(runs.metric)}"


def _panel(axes: Axes, runs: ReferenceRuns, curves: Curves, word: str) -> None:
    ending = "" if curves.loss is None else f", ends at {curves.loss:.2f} nats"
    axes.set_title(f"{word}{ending}\n{curves.about}", loc="left", fontsize=9)
    for at, (name, values) in enumerate(curves.lines.items()):
        heights = [float("nan") if value is None else value for value in values]
        marker = "o" if sum(value is not None for value in values) == 1 else None
        axes.plot(curves.steps, heights, color=COLOURS[at % len(COLOURS)], marker=marker, markersize=3, label=name)
    if runs.limit is not None:
        axes.axhline(runs.limit, color=LIMIT, linestyle="--", label="limit")
    axes.set_xlabel(runs.across)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _scale(axes: Axes, runs: ReferenceRuns) -> None:
    """Choose a logarithmic axis where the values are positive and span more than a decade, else one from zero."""
    values = [v for curves in (runs.bad, runs.good) for line in curves.lines.values() for v in line if v is not None]
    values += [] if runs.limit is None else [runs.limit]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        axes.set_ylim(bottom=min(0.0, *values))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _shortened(svg: str) -> str:
    """Return ``svg`` without its prolog, coordinates to a hundredth of a point, each path on one line: half of it."""
    short = re.sub(r"\d+\.\d{3,}(?![^<>]*</)", lambda found: f"{float(found[0]):.2f}", svg)
    return re.sub(r"\s*\n(?=[LMz\"])", " ", short[short.index("<svg") :])
