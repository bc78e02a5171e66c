"""Curves of a run for views with room for about a hundred: the run's numbers, and one number a layer of a few metrics.

Names are zero-padded, since such views sort as text. In a model with more layers than there is room for, evenly spaced
ones have curves, the first and the last among them.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stabmon.metrics import METRICS, Shown
from stabmon.names import padded
from stabmon.series import Floats, Layout, is_missing
from stabmon.store.column_selection import ColumnSelection, select_columns

CURVES = 90
"""Most per-layer curves; with the run's own numbers there are about a hundred."""


class Curve(NamedTuple):
    """One metric of the run, or of some layers: ``attention_norm/layers.03``."""

    chosen: ColumnSelection
    layers: list[tuple[int, str]]
    """Column after reduction, and the tag."""

    def numbers(self, values: Floats) -> Iterator[tuple[str, float]]:
        """Yield tag and value of what was measured in the row ``values`` [width]."""
        reduced = self.chosen.shaped(values[None, self.chosen.columns])[0]
        absent = is_missing(reduced)
        return ((tag, float(reduced[at])) for at, tag in self.layers if not absent[at])


def shown(layout: Layout, view: Shown) -> list[str]:
    """Return the recorded metrics that the glossary shows in ``view``."""
    return [name for name in layout.metrics if name in METRICS and view in METRICS[name].shown]


def of_run(layout: Layout) -> list[str]:
    """Return the metrics that are one number a run, those that the user logs by names of their own among them."""
    return [name for name in layout.metrics if layout.of_metric(name)[0].layer is None]


def curves(layout: Layout) -> Iterator[Curve]:
    """Yield the run's own numbers, and the per-layer curves that fit into ``CURVES``."""
    own = shown(layout, Shown.CURVE)
    for metric in of_run(layout):
        yield Curve(select_columns(layout, metric, None), [(0, metric)])
    for metric in own:
        names = layout.layers(metric)
        digits = max((len(number) for name in names for number in re.findall(r"\d+", name or "")), default=2)
        columns = np.unique(np.linspace(0, len(names) - 1, min(len(names), CURVES // len(own))).round().astype(int))
        tags = [(int(column), f"{metric}/{padded(names[column] or '', max(2, digits))}") for column in columns]
        yield Curve(select_columns(layout, metric, None).reduced(), tags)
