"""Results of the benchmark as Markdown, as README.md shows them."""

from collections.abc import Iterator, Mapping
from typing import Any

from . import published_results

KINDS = {"fixed": "number", "learnable": "tensor [H]"}
"""Kinds of bias, and their columns' titles."""

Results = Mapping[str, Mapping[str, Any]]
"""A result of ``bench`` a backend, by name."""


def markdown(results: Results) -> Iterator[str]:
    """Yield every table."""
    yield speeds(results)
    yield over_cudnn(results)
    yield published_results.table(results["auto"]["cells"])
    yield costs(results)


def speeds(results: Results) -> str:
    """Return forward / backward TFLOP/s of every cell, and their ratio to cuDNN in the same run, as Markdown."""
    auto, triton = results["auto"]["cells"], results["triton"]["cells"]
    lines = [
        "| cell | triton | auto, number | auto, tensor [H] | cuDNN | FlashAttention-2 | auto over cuDNN |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, other in zip(auto, triton, strict=True):
        reached = [_speeds(other, "fixed"), *(_speeds(row, way) for way in ("fixed", "learnable", "cudnn", "flash"))]
        ratios = " / ".join(f"×{row[way]['fixed'] / row[way]['cudnn']:.2f}" for way in ("forward", "backward"))
        lines.append("| " + " | ".join([name(row), *reached, ratios]) + " |")
    return "\n".join(lines)


def over_cudnn(results: Results) -> str:
    """Return our speed over cuDNN's in the same run, geometric mean and worst cell, as Markdown."""
    lines = ["| over cuDNN | forward | worst | backward | worst |", "|---|---|---|---|---|"]
    for backend, result in results.items():
        for kind, bias in KINDS.items():
            shown = []
            for way in ("forward", "backward"):
                worst, cell = min((row[way][kind] / row[way]["cudnn"], name(row)) for row in result["cells"])
                shown += [f"×{result['means'][f'{way}/{kind}']['cudnn']:.2f}", f"×{worst:.2f} ({cell})"]
            lines.append(f"| {backend}, {bias} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def costs(results: Results) -> str:
    """Return what statistics add to a forward pass in CUDA graphs, and in brackets the sums alone, as Markdown."""
    rows = results["auto"]["statistics"]
    shapes = list(dict.fromkeys(_shape(row) for row in rows))
    lines = ["| n | " + " | ".join(shapes) + " |", "|---" * (1 + len(shapes)) + "|"]
    for length in sorted({row["length"] for row in rows}):
        cells = {
            _shape(row): f"{_percent(row['rows'])} % ({_percent(row['sums'])})"
            for row in rows
            if row["length"] == length
        }
        lines.append(f"| {length} | " + " | ".join(cells[shape] for shape in shapes) + " |")
    return "\n".join(lines)


def _speeds(row: Mapping[str, Any], way: str) -> str:
    return f"{row['forward'][way]:.0f} / {row['backward'][way]:.0f}"


def _shape(row: Mapping[str, Any]) -> str:
    return f"d {row['dim']} {'causal' if row['is_causal'] else 'full'}"


def name(row: Mapping[str, Any]) -> str:
    """Return what a cell is called in tables: d 64 causal 2048."""
    return f"{_shape(row)} {row['length']}"


def _percent(share: float) -> str:
    return f"{share:.1%}".rstrip("%").replace("-", "−")
