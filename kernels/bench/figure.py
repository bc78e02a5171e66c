"""Results of the benchmark as a figure, beside their tables: ``python -m stabmon.kernels.bench.figure bench.json``.

The file holds one result a backend, by name, as ``bench --output`` keeps them. Prints the tables of ``tables.py`` and
writes the figure, an SVG, beside the file.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from . import tables
from .tables import Results

WIDTH, HEIGHT, LEFT, TOP, FLOOR = 980, 510, 52, 44, 176
"""Size of the figure; left edge, top and height of a panel's bars."""
BAR, GAP = 16, 12
"""Width of a bar; what lies between cells."""
SERIES = {
    "auto": ("auto", "fixed", "#3b6fb6"),
    "triton": ("triton", "fixed", "#8ab0dc"),
    "cuDNN softmax": ("auto", "cudnn", "#c05a2b"),
    "FlashAttention-2 softmax": ("auto", "flash", "#e3b598"),
}
"""What is drawn: name, and the backend's result, the column and the colour of its bars."""
STEP = 200
"""TFLOP/s between two lines of the scale."""


def figure(results: Results) -> str:
    """Return the text of an SVG file: bars of every cell, forward above backward."""
    device = results["auto"]["device"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<style>text{font:12px system-ui,sans-serif;fill:#808890}.head{font-weight:600}"
        ".cell{font-size:11px}.axis{stroke:#808890;stroke-opacity:.35}</style>",
        f"<title>TFLOP/s of attention on {device}</title>",
        *_legend(),
        *_panel(results, "forward", TOP),
        *_panel(results, "backward", TOP + FLOOR + 70),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _legend() -> Iterator[str]:
    for at, (name, (_, _, colour)) in enumerate(SERIES.items()):
        x = LEFT + 180 * at
        yield f'<rect x="{x}" y="8" width="12" height="12" fill="{colour}"/><text x="{x + 18}" y="18">{name}</text>'


def _panel(results: Results, way: str, top: float) -> Iterator[str]:
    """Yield the scale, the bars and the names of the cells of one direction."""
    cells = {backend: results[backend]["cells"] for backend in ("auto", "triton")}
    highest = max(max(row[way].values()) for rows in cells.values() for row in rows)
    scale = FLOOR / (STEP * -(-highest // STEP))
    bottom = top + FLOOR
    yield f'<text class="head" x="{LEFT}" y="{top - 6}">{way}, TFLOP/s</text>'
    for value in range(0, int(highest) + STEP, STEP):
        y = bottom - value * scale
        yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text text-anchor="end" x="{LEFT - 6}" y="{y + 4:.1f}">{value}</text>'
    for at, row in enumerate(cells["auto"]):
        left = LEFT + GAP / 2 + at * (len(SERIES) * BAR + GAP)
        for bar, (backend, column, colour) in enumerate(SERIES.values()):
            height = cells[backend][at][way][column] * scale
            x = left + bar * BAR
            yield f'<rect x="{x}" y="{bottom - height:.1f}" width="{BAR - 2}" height="{height:.1f}" fill="{colour}"/>'
        middle = left + len(SERIES) * BAR / 2
        mask, length = tables.name(row).rsplit(" ", 1)
        yield f'<text class="cell" text-anchor="middle" x="{middle}" y="{bottom + 15}">{mask}</text>'
        yield f'<text class="cell" text-anchor="middle" x="{middle}" y="{bottom + 30}">{length}</text>'


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
