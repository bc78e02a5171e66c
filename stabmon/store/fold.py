"""Folding: 128 rows of all metrics become one blob a metric, and its levels for zooming out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.series import Floats, Layout
from stabmon.store import schema
from stabmon.store.levels import of_size, pack


class Sample(NamedTuple):
    """One sampled step; values [width] float32."""

    step: int
    time: float
    values: Floats


class Folded(NamedTuple):
    """Lines of the tables ``fold``, ``chunk`` and ``level``, without run, attempt and sequence."""

    about: dict[str, Any]
    chunks: list[dict[str, Any]]
    levels: list[dict[str, Any]]


def pieces(layout: Layout) -> dict[str, npt.NDArray[np.intp]]:
    """Return for each metric the columns of a row that belong to it, layers in the layout's order."""
    return {
        metric: np.concatenate([np.arange(c.start, c.start + c.size) for c in layout.of_metric(metric)])
        for metric in layout.metrics
    }


def fold_of(samples: Sequence[Sample], columns: dict[str, npt.NDArray[np.intp]]) -> Folded:
    """Fold ``samples``; ``columns`` as ``pieces`` gives them."""
    rows = np.stack([sample.values for sample in samples])
    steps = np.array([sample.step for sample in samples], dtype="<i8")
    times = np.array([sample.time for sample in samples], dtype="<f8")
    about = {"samples": len(samples), "first": int(steps[0]), "last": int(steps[-1])}
    order = np.concatenate([*columns.values()]) if columns else np.arange(0)
    by_column = rows.T[order].astype("<f4", copy=False)
    packed = {size: pack(of_size(rows, size))[order] for size in schema.LEVELS}
    chunks, levels, start = [], [], 0
    for metric, own in columns.items():
        part = slice(start, start + len(own))
        chunks.append({"metric": metric, "data": by_column[part].tobytes()})
        levels += [{"metric": metric, "size": size, "data": packed[size][part].tobytes()} for size in schema.LEVELS]
        start += len(own)
    return Folded(about | {"steps": steps.tobytes(), "times": times.tobytes()}, chunks, levels)
