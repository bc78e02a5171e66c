"""Results of the benchmark as a figure, with their tables: ``python -m stabmon.kernels.bench.figure bench.json``.

The file holds one result a backend, by name, as ``bench --output`` keeps them. Prints the tables of ``tables.py`` and
writes the figure, an SVG drawn by matplotlib, beside the file.
"""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from . import tables
from .tables import Results

GREY = "#808890"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "svg.hashsalt": "stabmon",  # the same figure is the same file
    "font.sans-serif": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.3,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}
"""One grey for axes and text that light and dark pages both show."""
SERIES = {
    "auto": ("auto", "fixed", "#3b6fb6"),
    "triton": ("triton", "fixed", "#8ab0dc"),
    "cuDNN softmax": ("auto", "cudnn", "#c05a2b"),
    "FlashAttention-2 softmax": ("auto", "flash", "#e3b598"),
}
"""The bars of a cell: name, and the backend's result, the column and the colour."""
BAR = 0.2
"""Width of a bar, in cells."""


def figure(results: Results) -> str:
    """Return the text of an SVG file: bars of every cell, forward above backward."""
    import matplotlib
    from matplotlib.figure import Figure

    title = f"TFLOP/s of attention on {results['auto']['device']}"
    names = [tables.name(row).rsplit(" ", 1) for row in results["auto"]["cells"]]
    with matplotlib.rc_context(STYLE):
        drawing = Figure(figsize=(10.5, 5.6), layout="constrained")
        for axes, way in zip(drawing.subplots(2, 1, sharex=True), ("forward", "backward"), strict=True):
            for at, (label, (backend, column, colour)) in enumerate(SERIES.items()):
                heights = [row[way][column] for row in results[backend]["cells"]]
                positions = [cell + BAR * (at - (len(SERIES) - 1) / 2) for cell in range(len(heights))]
                axes.bar(positions, heights, width=0.9 * BAR, color=colour, label=label)
            axes.set_title(f"{way}, TFLOP/s", loc="left", fontsize=10, fontweight="bold")
            axes.set_xticks(range(len(names)), [f"{mask}\n{length}" for mask, length in names])
            axes.set_xlim(-0.5, len(names) - 0.5)
        drawing.legend(*axes.get_legend_handles_labels(), loc="upper right", ncols=len(SERIES), frameon=False)
        buffer = io.StringIO()
        metadata = {"Date": None, "Creator": None, "Title": title}
        drawing.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _shortened(buffer.getvalue())


def _shortened(svg: str) -> str:
    """Return ``svg`` without its prolog, coordinates to a hundredth of a point, each path on one line: half of it."""
    short = re.sub(r"\d+\.\d{3,}(?![^<>]*</)", lambda found: f"{float(found[0]):.2f}", svg)
    return re.sub(r"\s*\n(?=[LMz\"])", " ", short[short.index("<svg") :])


def main(arguments: list[str]) -> None:
    """Read the file that is named, print the tables, write the figure beside it."""
    if len(arguments) != 1:
        sys.exit("expected one file of results, as python -m stabmon.kernels.bench --output FILE keeps them")
    path = Path(arguments[0])
    results = json.loads(path.read_text())
    if missing := [backend for backend in ("auto", "triton") if backend not in results]:
        sys.exit(f"{path} has no run of {missing[0]}: add it by bench --backend {missing[0]} --output {path}")
    path.with_suffix(".svg").write_text(figure(results))
    print(*tables.markdown(results), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
