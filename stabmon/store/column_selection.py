"""The columns of a run that a reader asked for, and their reduction to one a layer."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.errors import StoreError
from stabmon.metrics import METRICS, Place
from stabmon.names import natural_key
from stabmon.series import Floats, Layout, Spot, over_heads


class ColumnSelection(NamedTuple):
    """Neighbouring columns of one metric's chunk, in the layout's order of layers."""

    metric: str
    columns: npt.NDArray[np.intp]
    """The same columns in a row of the layout."""
    first: int
    """Index of the first of them among the metric's columns."""
    heads: tuple[int, ...]
    """Number of columns of each layer."""
    spots: list[Spot]
    by_layer: bool = False

    @property
    def shown(self) -> list[Spot]:
        """Layer and head of each column after the reduction."""
        if not self.by_layer:
            return self.spots
        return [Spot(layer, None) for layer in dict.fromkeys(layer for layer, _ in self.spots)]

    def reduced(self) -> "ColumnSelection":
        """Return the same columns, to be reduced to one a layer."""
        return self._replace(by_layer=True)

    def shaped(self, values: Floats) -> Floats:
        """Return ``values`` [samples, columns] as they are wanted: unchanged, or one column a layer."""
        if not self.by_layer:
            return values
        if len(set(self.heads)) == 1:
            return over_heads(self.metric, values.reshape(len(values), len(self.heads), self.heads[0]))
        ends = np.cumsum(self.heads)[:-1]
        return np.stack([over_heads(self.metric, part) for part in np.split(values, ends, axis=1)], axis=1)


def select_columns(layout: Layout, metric: str, layer: str | None) -> ColumnSelection:
    """Select ``metric``, of all layers or of ``layer``.

    Raises:
        StoreError: the run does not record it; the message lists what it records.
    """
    every = layout.of_metric(metric)
    if not every:
        raise StoreError(f"this run records no metric {metric!r}; it records {', '.join(layout.metrics) or 'nothing'}")
    wanted = [columns for columns in every if layer is None or columns.layer == layer]
    if not wanted:
        names = ", ".join(sorted((name for name in layout.layers(metric) if name), key=natural_key))
        raise StoreError(f"this run records no {metric} of layer {layer!r}; it has {names or 'no layers for it'}")
    by_head = METRICS[metric].place is Place.HEAD if metric in METRICS else wanted[0].size > 1
    return ColumnSelection(
        metric=metric,
        columns=np.concatenate([np.arange(columns.start, columns.start + columns.size) for columns in wanted]),
        first=sum(columns.size for columns in every[: every.index(wanted[0])]),
        heads=tuple(columns.size for columns in wanted),
        spots=[Spot(columns.layer, head if by_head else None) for columns in wanted for head in range(columns.size)],
    )
