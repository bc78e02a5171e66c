"""The numbers of a run that are asked for: a metric, one column a layer, or the heads of one layer."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException

from stabmon.names import natural_key
from stabmon.series import Floats, Layout, Series, Spot, over_heads
from stabmon.store import New, RunReader
from stabmon.store.logged import is_own, with_logged


class Selection(NamedTuple):
    """One metric: a column a layer or, where ``layer`` is given, a column a head."""

    metric: str
    layer: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """Read ``row_mass`` or ``row_mass@layers.3``."""
        metric, _, layer = text.partition("@")
        return cls(metric, layer or None)

    def __str__(self) -> str:
        return f"{self.metric}@{self.layer}" if self.layer else self.metric

    def check(self, layout: Layout) -> None:
        """Raise a 404 that names what there is, unless ``layout`` holds this selection."""
        layers = layout.layers(self.metric)
        if not layers:
            raise HTTPException(
                404, f"this run does not record {self.metric!r}; it records: {', '.join(layout.metrics)}"
            )
        if self.layer is not None and self.layer not in layers:
            there = ", ".join(sorted(filter(None, layers), key=natural_key)) or "no layers, it is one number a run"
            raise HTTPException(404, f"{self.metric!r} has no layer {self.layer!r}; it has: {there}")

    def read(self, reader: RunReader, start: int | None, stop: int | None, points: int) -> Series:
        """Read at most ``points`` points a column from ``start`` (included) to ``stop`` (excluded).

        Raises:
            HTTPException: 404, the run does not record it.
        """
        self.check(reader.layout)
        if self.layer is None:
            return reader.read_layers(self.metric, start=start, stop=stop, max_points=points)
        return reader.read(self.metric, layer=self.layer, start=start, stop=stop, max_points=points)

    def pick(self, layout: Layout, new: New) -> Series:
        """Take this selection out of new samples."""
        series = self._picked(layout, new.steps, new.rows)
        if not is_own(layout, self.metric):
            return series
        return with_logged(series, [one for placed in new.logged for one in placed.values if one.metric == self.metric])

    def _picked(self, layout: Layout, steps: npt.NDArray[np.int64], rows: Floats) -> Series:
        columns = [column for column in layout.of_metric(self.metric) if self.layer in (None, column.layer)]
        blocks = [rows[:, column.start : column.start + column.size] for column in columns]
        if self.layer is None:
            spots = [Spot(column.layer, None) for column in columns]
            return Series(
                self.metric, spots, steps, np.stack([over_heads(self.metric, block) for block in blocks], axis=1)
            )
        return Series(self.metric, [Spot(self.layer, head) for head in range(columns[0].size)], steps, blocks[0])
