"""The first step at which the numbers of two runs are not the same, and at which they part for good."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.metrics import on_path
from stabmon.records import Record
from stabmon.series import Floats, Series, is_missing
from stabmon.store import RunReader

LASTING = 3
"""Samples in a row that must differ, so that a single spike is no parting; as on the page."""


class Parting(Record):
    """The first step at which a number of a run is not that of the first run."""

    step: int
    metric: str
    layer: str | None
    first: float
    """The number of the first run."""
    other: float


class Partings(NamedTuple):
    """Of two runs the first step of each kind, in all metrics that both record."""

    differs: Parting | None = None
    """First step at which any number is not the same."""
    parts: Parting | None = None
    """First step at which one has parted."""
    loss_parts: Parting | None = None
    """The same of the loss."""


def partings(first: RunReader, other: RunReader, apart: float) -> Partings:
    """Compare all samples of two runs; of several numbers that part at one step, take the first on the data's path."""
    differ, part = [], []
    for name in sorted(first.layout.metrics, key=lambda name: on_path(name)):
        if not other.layout.of_metric(name):
            continue
        mine, theirs = first.read_layers(name), other.read_layers(name)
        differ.append(_of_metric(mine, theirs, 0.0, 1))
        part.append(_of_metric(mine, theirs, apart, LASTING))
    loss = next((one for one in part if one is not None and one.metric == "loss"), None)
    return Partings(_earliest(differ), _earliest(part), loss)


def _earliest(found: list[Parting | None]) -> Parting | None:
    return min((one for one in found if one is not None), key=lambda one: one.step, default=None)


def _of_metric(first: Series, other: Series, apart: float, lasting: int) -> Parting | None:
    _, mine, theirs = np.intersect1d(first.steps, other.steps, return_indices=True)
    layers = [spot.layer for spot in first.spots]
    columns = {spot.layer: at for at, spot in enumerate(other.spots)}
    shared = [(at, columns[layer]) for at, layer in enumerate(layers) if layer in columns]
    if not shared or not len(mine):
        return None
    a = first.values[mine][:, [at for at, _ in shared]]
    b = other.values[theirs][:, [at for _, at in shared]]
    both = ~(is_missing(a) | is_missing(b))
    rows = [_first(_parted(a[own, at], b[own, at], apart), own, lasting) for at, own in enumerate(both.T)]
    row, column = min((row, at) for at, row in enumerate(rows))
    if row == len(a):
        return None
    step, layer = int(first.steps[mine[row]]), layers[shared[column][0]]
    return Parting(
        step=step, metric=first.metric, layer=layer, first=float(a[row, column]), other=float(b[row, column])
    )


def _first(apart: npt.NDArray[np.bool_], own: npt.NDArray[np.bool_], lasting: int) -> int:
    """Return the row of the first of ``lasting`` numbers in a row that are apart, or the number of rows.

    apart: of the rows in which both runs have a number, which are those of ``own``.
    """
    row = np.flatnonzero(own)
    begins = np.ones(max(len(apart) - lasting + 1, 0), np.bool_)
    for after in range(lasting):
        begins &= apart[after : after + len(begins)]
    return int(row[begins.argmax()]) if begins.any() else len(own)


def _parted(a: Floats, b: Floats, apart: float) -> npt.NDArray[np.bool_]:
    """Return where ``a`` and ``b`` differ by more than ``apart``; NaN differs from every number but NaN."""
    with np.errstate(all="ignore"):
        far = np.abs(a.astype(np.float64) - b) > apart * np.maximum(np.abs(a), np.abs(b)).astype(np.float64)
    is_finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    result: npt.NDArray[np.bool_] = np.where(is_finite, far, ~same)
    return result
