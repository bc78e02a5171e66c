"""The input of the rules: the model's map, the newest sample, the run's start, and its recent past.

Comparisons with a limit are made here only, because they decide how a value that is not finite counts: NaN and
``MISSING`` are never over a limit, +Inf is above every one. A column counts as over while it is past ``HOLD`` of the
limit, so that an open finding does not flicker; it opens one only past the whole limit.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.findings import Reading
from stabmon.metrics import DataPath, on_path
from stabmon.records import Attention, RunInfo
from stabmon.rules.last_logged import LastLogged
from stabmon.series import Floats, Layout, Spot, is_missing

HISTORY = 1024
"""Samples that are kept."""
START = 5
"""Measured samples whose mean is the start of a series."""
HOLD = 0.8
"""Share of a limit that a value must fall under (or limit over value, for a lower limit) before a finding may clear."""

Limit = float | np.float64 | npt.NDArray[np.floating]


class Hit(NamedTuple):
    """A layer that is over a limit: its worst head and how many of its heads are."""

    metric: str
    layer: str | None
    head: int | None
    value: float
    limit: float
    excess: float
    """Ratio to the limit: above 1 opens a finding, from ``HOLD`` to 1 holds it open."""
    heads: int
    """Heads over the limit itself."""
    measured: int
    """Heads that were measured at this step."""

    @property
    def where(self) -> str:
        """The heads over the limit: "in all 4 heads", "in both heads", "in head 2 of 4", "in 3 of 4 heads", or ""."""
        if self.head is None:
            return ""
        if self.heads <= 1:
            return f" in head {self.head} of {self.measured}"
        if self.heads < self.measured:
            return f" in {self.heads} of {self.measured} heads"
        return " in both heads" if self.heads == 2 else f" in all {self.heads} heads"


class MetricView:
    """One metric at the newest sample, flat over layers and heads, with its past."""

    def __init__(self, run: "Run", metric: str) -> None:
        self._run = run
        self.metric = metric
        columns = run.layout.of_metric(metric)
        self.spots = [
            Spot(column.layer, head if column.size > 1 else None) for column in columns for head in range(column.size)
        ]
        at = np.array([column.start + i for column in columns for i in range(column.size)], dtype=np.intp)
        self._at: slice | npt.NDArray[np.intp] = _as_slice(at)
        self._sizes = [column.size for column in columns]
        self._starts = np.cumsum([0, *self._sizes[:-1]], dtype=np.intp)
        self._slices: dict[str | None, slice] = {}
        self._beside: dict[str, tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]] = {}
        self._facts: dict[Callable[[Run, str | None], float], npt.NDArray[np.float64]] = {}
        start = 0
        for column in columns:
            self._slices[column.layer] = slice(start, start + column.size)
            start += column.size

    @property
    def now(self) -> Floats:
        """Newest sample, [columns]; not to be written to."""
        return self._run.row[self._at]

    @property
    def first(self) -> npt.NDArray[np.float64]:
        """First finite value of each column, [columns]; NaN before there is one."""
        return self._run.first[self._at]

    @property
    def start(self) -> npt.NDArray[np.float64]:
        """Mean of each column's first ``START`` finite values, [columns]; NaN before there is one."""
        return self._run.start_of(self._at)

    def past(self, samples: int) -> Floats:
        """Return up to ``samples`` samples before the newest, oldest first, [samples, columns]."""
        return self._run.past(samples)[:, self._at]

    def of(self, layer: str | None) -> Floats:
        """Return the newest values of one layer's heads, [heads]; empty where the layer does not record this metric."""
        where = self._slices.get(layer)
        return self.now[where] if where is not None else np.empty(0, dtype=np.float32)

    def within(self, layer: str | None) -> slice:
        """Return where in this series one layer's heads are; an empty slice where it does not record this metric."""
        return self._slices.get(layer, slice(0, 0))

    @property
    def rectangle(self) -> tuple[int, int] | None:
        """(layers, heads) where every layer has the same number of heads, else None."""
        return (len(self._sizes), self._sizes[0]) if len(set(self._sizes)) == 1 else None

    def columns_of(self, layer: str | None) -> npt.NDArray[np.intp]:
        """Return where in a row one layer's heads are, [heads]."""
        found = [
            np.arange(c.start, c.start + c.size) for c in self._run.layout.of_metric(self.metric) if c.layer == layer
        ]
        return np.concatenate(found) if found else np.empty(0, dtype=np.intp)

    def above(self, limit: Limit) -> list[Hit]:
        """Return the layers with a head above ``limit`` (positive; one number or one a column), worst head named."""
        now = self.now
        if not (now > limit * HOLD).any():
            return []
        with np.errstate(all="ignore"):
            return self.over(now / limit, limit)

    def below(self, limit: Limit) -> list[Hit]:
        """Return the layers with a head below ``limit`` (positive; one number or one a column), worst head named."""
        now = self.now
        if not (now < limit / HOLD).any():
            return []
        with np.errstate(all="ignore"):
            return self.over(np.where(now <= 0, np.inf, limit / now), limit)

    def over(self, excess: npt.NDArray[np.floating], limit: Limit) -> list[Hit]:
        """Return the layers with a head whose ``excess`` [columns] over ``limit`` is past ``HOLD``, worst named."""
        now = self.now
        certain = np.where(np.isnan(excess), -np.inf, excess)
        worst = np.maximum.reduceat(certain, self._starts)
        heads = np.add.reduceat(certain > 1, self._starts, dtype=np.int64)
        measured = np.add.reduceat(~np.isnan(now), self._starts, dtype=np.int64)
        return [
            self._hit(int(i), now, limit, certain, int(heads[i]), int(measured[i]))
            for i in np.flatnonzero(worst > HOLD)
        ]

    def _hit(
        self,
        layer: int,
        now: Floats,
        limit: Limit,
        excess: npt.NDArray[np.floating],
        heads: int,
        measured: int,
    ) -> Hit:
        start = int(self._starts[layer])
        at = start + int(excess[start : start + self._sizes[layer]].argmax())
        spot = self.spots[at]
        numbers = float(now[at]), float(limit[at] if isinstance(limit, np.ndarray) else limit), float(excess[at])
        return Hit(self.metric, spot.layer, spot.head, *numbers, heads, measured)

    def beside(self, metric: str) -> Floats:
        """Return another metric's newest value in each column's layer (its first head), [columns]; NaN without."""
        if metric not in self._beside:
            first = {column.layer: column.start for column in reversed(self._run.layout.of_metric(metric))}
            at = np.array([first.get(spot.layer, -1) for spot in self.spots], dtype=np.intp)
            self._beside[metric] = (at, at < 0)
        at, absent = self._beside[metric]
        return np.where(absent, np.float32(np.nan), self._run.row[at])

    def by_layer(self, fact: Callable[["Run", str | None], float]) -> npt.NDArray[np.float64]:
        """Return ``fact(run, layer)`` of each column's layer, [columns]; evaluated once a run."""
        if fact not in self._facts:
            self._facts[fact] = np.array([fact(self._run, spot.layer) for spot in self.spots], dtype=np.float64)
        return self._facts[fact]

    def not_finite(self) -> list[int]:
        """Return the columns that were measured and are NaN or infinite."""
        return [int(i) for i in np.flatnonzero(self._run.not_finite[self._at])]

    def cell(self, column: int) -> Reading:
        """Return one column's newest value as evidence."""
        layer, head = self.spots[column]
        step = self._run.step_of(self.metric)
        return Reading(metric=self.metric, layer=layer, head=head, step=step, value=float(self.now[column]))


class Run:
    """A run up to its newest sample, as rules see it: bounded in memory, fed one sample at a time."""

    def __init__(self, info: RunInfo, layout: Layout) -> None:
        self.info = info
        self.layout = layout
        self.step = -1
        self.samples = 0
        self._attentions = {attention.layer: attention for attention in info.model.attentions}
        layers = [*self._attentions, *(column.layer for column in layout.columns if column.layer is not None)]
        self._places = {layer: place for place, layer in enumerate(dict.fromkeys(layers))}
        self._series: dict[str, MetricView] = {}
        # Twice the history, so that rows move once in HISTORY samples; untouched pages cost nothing.
        self._rows = np.empty((2 * HISTORY, layout.width), dtype=np.float32)
        self._steps = np.empty(2 * HISTORY, dtype=np.int64)
        self._end = 0
        self.first = np.full(layout.width, np.nan)
        """First finite value of each column, [width]; NaN before there is one."""
        self._start_sum = np.zeros(layout.width)
        self._start_count = np.zeros(layout.width, dtype=np.int64)
        self._started = False
        self.row: Floats = np.empty(layout.width, dtype=np.float32)
        self.finite = np.zeros(layout.width, dtype=bool)
        self.not_finite = self.finite
        self.any_not_finite = False
        self.logged = LastLogged(layout)

    def attention(self, layer: str | None) -> Attention | None:
        """Return the attention whose series are kept under ``layer``, or None."""
        return self._attentions.get(layer or "")

    def place(self, layer: str | None, metric: str) -> int:
        """Return the place of ``layer`` in a pass, from 0 on; a block's output comes with its last attention."""
        attention = self.attention(layer)
        if attention is None or on_path(metric)[0] is not DataPath.BLOCK_OUTPUT:
            return self._places.get(layer or "", len(self._places))
        same = (one.layer for one in self._attentions.values() if one.block == attention.block)
        return max(self._places[one] for one in same)

    def series(self, metric: str) -> MetricView:
        """Return ``metric`` over all layers and heads; without columns where the run does not record it."""
        if metric not in self._series:
            self._series[metric] = MetricView(self, metric)
        return self._series[metric]

    def step_of(self, metric: str) -> int:
        """Return the step at which ``metric`` of the newest sample was measured, or logged before it."""
        return self.logged.steps.get(metric, self.step)

    def step_before(self, metric: str) -> int:
        """Return the same of the sample before the newest."""
        return self.logged.steps_before.get(metric, self.past_steps(1)[-1])

    def add(self, step: int, values: Floats) -> None:
        """Make ``values`` [width] the newest sample, at ``step``; a run that goes back drops what it repeats."""
        while self._end and self._steps[self._end - 1] >= step:
            self._end -= 1
        if self._end == len(self._rows):
            self._rows[:HISTORY] = self._rows[HISTORY:]
            self._steps[:HISTORY] = self._steps[HISTORY:]
            self._end = HISTORY
        self.row = self._rows[self._end]
        self.row[:] = values
        self._steps[self._end] = step
        self._end += 1
        self.step, self.samples = step, self.samples + 1
        self.logged.fill(step, self.row)
        self.finite = np.isfinite(self.row)
        self._find_not_finite()
        if not self._started:
            self._take_start()

    def _take_start(self) -> None:
        early = self.finite & (self._start_count < START)
        if early.any():
            new = early & (self._start_count == 0)
            self.first[new] = self.row[new]
            self._start_sum[early] += self.row[early]
            self._start_count[early] += 1
        self._started = bool((self._start_count == START).all())

    def _find_not_finite(self) -> None:
        self.not_finite = ~self.finite
        if self.not_finite.any():
            self.not_finite &= ~is_missing(self.row)
        self.any_not_finite = bool(self.not_finite.any())

    def past(self, samples: int) -> Floats:
        """Return up to ``samples`` rows before the newest, oldest first, [samples, width]."""
        last = self._end - 1
        return self._rows[max(0, last - min(samples, HISTORY - 1)) : last]

    def past_steps(self, samples: int) -> list[int]:
        """Return the steps of ``past(samples)``."""
        last = self._end - 1
        return [int(step) for step in self._steps[max(0, last - min(samples, HISTORY - 1)) : last]]

    def start_of(self, at: slice | npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Return the mean of the first ``START`` finite values of the columns ``at``; NaN before there is one."""
        count = self._start_count[at]
        return np.where(count > 0, self._start_sum[at] / np.maximum(count, 1), np.nan)

    def was_measured(self, metric: str, layer: str | None) -> bool:
        """Return whether the newest sample holds a finite value of ``metric`` in ``layer``."""
        return bool(np.isfinite(self.series(metric).of(layer)).any())

    def value(self, metric: str, layer: str | None) -> float | None:
        """Return the median over heads of the newest finite values of ``metric`` in ``layer``, or None."""
        values = self.series(metric).of(layer)
        values = values[np.isfinite(values)]
        return float(np.median(values)) if values.size else None

    def cells(self, layer: str | None, *metrics: str, head: int | None = None) -> tuple[Reading, ...]:
        """Return the newest values of ``metrics`` in ``layer`` as evidence: of ``head``, or of the only column."""
        found = []
        for metric in metrics:
            values = self.series(metric).of(layer)
            at = head if head is not None and values.size > 1 else 0
            if at < values.size and not np.isnan(values[at]):
                named = at if values.size > 1 else None
                step = self.step_of(metric)
                found.append(Reading(metric=metric, layer=layer, head=named, step=step, value=float(values[at])))
        return tuple(found)


def _as_slice(at: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """Return ``at`` as a slice where its columns lie side by side, so that reading them copies nothing."""
    if len(at) and bool((np.diff(at) == 1).all()):
        return slice(int(at[0]), int(at[-1]) + 1)
    return at
