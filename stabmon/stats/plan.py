"""The device buffer of a monitor and the row that is made of it, derived from the glossary when the monitor attaches.

The buffer is one float32 vector in three sections: sums, which start at 0; maxima, which start at -inf; and numbers
that are set (a bias, a learning rate, a gradient norm, a logged loss), which start as ``MISSING``. Within a section the
same raw input of all attentions lies together, so that one operation reaches every layer.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.metrics import METRICS, RAW, Metric, Per, Place, Raw, Reduction, When, inputs
from stabmon.records import Attention
from stabmon.series import MISSING, Floats, Layout
from stabmon.stats.slots import Slots

Index = npt.NDArray[np.intp]
_INITIAL = {Reduction.ADD: np.float32(0), Reduction.MAX: np.float32(-np.inf), Reduction.SET: MISSING}


class Computed(NamedTuple):
    """One metric's columns of the row, and for each raw input the elements of the buffer that they are computed from.

    inputs, counted, nonzero: [columns] each; for a metric of the run, all elements of that input.
    """

    metric: Metric
    columns: slice
    inputs: list[Index]
    counted: list[Index]
    nonzero: list[Index]


class Plan:
    """The buffer of a monitor and the layout of its rows.

    Args:
        attentions: the model's, in the order of a pass.
        logged: metrics that the user logs.
        optimizer: whether a learning rate can be read.
        preflight: whether this is the single pass of ``preflight``: there is no gradient, but softmax to compare with.
        distributed: whether the buffer is that of several processes, merged.
    """

    def __init__(
        self,
        attentions: Sequence[Attention],
        logged: Sequence[str] = (),
        *,
        optimizer: bool = False,
        preflight: bool = False,
        distributed: bool = False,
    ) -> None:
        self.attentions = tuple(attentions)
        self._initial: list[Floats] = []
        self.width = 0
        """Number of elements of the buffer."""
        self._per_attention: list[dict[str, slice]] = [{} for _ in self.attentions]
        self._of_run: dict[str, slice] = {}
        self.sums, self.maxima, _ = (self._section(reduction) for reduction in Reduction)
        self.slots = tuple(
            Slots(one.heads, slices) for one, slices in zip(self.attentions, self._per_attention, strict=True)
        )
        self.logged = {name: self._take(1, Reduction.SET) for name in logged}
        self.initial: Floats = np.concatenate(self._initial)
        when = {When.ALWAYS, When.PREFLIGHT if preflight else When.TRAINING}
        when |= {When.OPTIMIZER} if optimizer else set()
        when |= {When.DISTRIBUTED} if distributed else set()
        self._metrics = [metric for metric in METRICS.values() if metric.when in when]
        self.layout = Layout.of([*self._wanted(), *((name, None, 1) for name in logged)])
        self.columns = _columns(self.layout)
        """The columns of the row by metric."""
        self.computed = [self._computed(metric) for metric in self._metrics if metric.name in self.columns]

    def of_run(self, name: str) -> slice:
        """Return the slice of a raw input of the run."""
        return self._of_run[name]

    def block(self, name: str) -> Slots:
        """Return the slots of the first attention in the block ``name``."""
        return self.slots[[attention.block for attention in self.attentions].index(name)]

    def _section(self, reduction: Reduction) -> slice:
        """Take the elements of all raw inputs of one reduction."""
        start = self.width
        for raw in RAW.values():
            if raw.reduction is reduction:
                self._take_raw(raw)
        return slice(start, self.width)

    def _take_raw(self, raw: Raw) -> None:
        size = len(raw.inputs)
        if raw.per is Per.RUN:
            self._of_run[raw.name] = self._take(size, raw.reduction)
            return
        blocks: dict[str, slice] = {}
        for attention, slices in zip(self.attentions, self._per_attention, strict=True):
            if raw.per is not Per.BLOCK:
                at = self._take(size * (attention.heads if raw.per is Per.HEAD else 1), raw.reduction)
            elif attention.block in blocks:
                at = blocks[attention.block]
            else:
                at = blocks[attention.block] = self._take(size, raw.reduction)
            slices[raw.name] = at

    def _take(self, size: int, reduction: Reduction) -> slice:
        start, self.width = self.width, self.width + size
        self._initial.append(np.full(size, _INITIAL[reduction], dtype=np.float32))
        return slice(start, self.width)

    def _wanted(self) -> Iterator[tuple[str, str | None, int]]:
        for metric in self._metrics:
            if metric.place is Place.RUN:
                yield metric.name, None, 1
                continue
            for attention in filter(metric.where, self.attentions):
                yield metric.name, attention.layer, attention.heads if metric.place is Place.HEAD else 1

    def _computed(self, metric: Metric) -> Computed:
        known = inputs(RAW.values())
        given = [self._elements(metric, *known[name]) for name in metric.inputs]
        counted = [self._elements(metric, *known[name]) for name in metric.counted] or given
        nonzero = [self._elements(metric, *known[name]) for name in metric.nonzero]
        return Computed(metric, self.columns[metric.name], given, counted, nonzero)

    def _elements(self, metric: Metric, raw: Raw, column: int) -> Index:
        """Return where the buffer holds ``column`` of ``raw`` for each column of ``metric``, or all of it for a run."""
        size = len(raw.inputs)
        if raw.per is Per.RUN:
            count = 1 if metric.place is Place.RUN else self.columns[metric.name].stop - self.columns[metric.name].start
            return np.full(count, self._of_run[raw.name].start + column, dtype=np.intp)
        found: list[int] = []
        for attention, slots in zip(self.attentions, self.slots, strict=True):
            if not metric.where(attention):
                continue
            own = range(slots[raw.name].start + column, slots[raw.name].stop, size)
            found += list(own) * (attention.heads if metric.place is Place.HEAD and raw.per is not Per.HEAD else 1)
        return np.array(list(dict.fromkeys(found)) if metric.place is Place.RUN else found, dtype=np.intp)


def _columns(layout: Layout) -> dict[str, slice]:
    """Return the columns of each metric of a layout in which they lie side by side."""
    ends: dict[str, list[int]] = {}
    for column in layout.columns:
        ends.setdefault(column.metric, []).extend((column.start, column.start + column.size))
    return {metric: slice(own[0], own[-1]) for metric, own in ends.items()}
