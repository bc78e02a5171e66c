"""One row of numbers a sampled step, and the series that are its columns.

A row is a float32 vector whose columns are fixed when the monitor attaches. NaN and infinities are facts and are kept
bit for bit, so a number that was never measured needs another mark: ``MISSING``, a NaN with a payload of its own.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from stabmon.metrics import METRICS, OverHeads
from stabmon.records import Record

Floats = npt.NDArray[np.float32]

MISSING_BITS = 0x7FC05AB5
MISSING = cast(np.float32, np.array(MISSING_BITS, dtype=np.uint32).view(np.float32)[()])
"""The NaN that says "not measured at this step"; an ordinary NaN says "measured, and it was NaN"."""


def is_missing(values: Floats) -> npt.NDArray[np.bool_]:
    """Return where ``values`` (any shape, float32) were not measured."""
    missing: npt.NDArray[np.bool_] = np.ascontiguousarray(values).view(np.uint32) == MISSING_BITS
    return missing


class Columns(Record):
    """The columns of one metric of one layer: one a head, or a single one."""

    metric: str
    layer: str | None
    start: int
    size: int


class Layout(Record):
    """The columns of a row: which holds what metric of what layer and head."""

    columns: tuple[Columns, ...]

    @classmethod
    def of(cls, wanted: Iterable[tuple[str, str | None, int]]) -> "Layout":
        """Lay out ``(metric, layer, size)`` one after another, in the order given."""
        columns, start = [], 0
        for metric, layer, size in wanted:
            columns.append(Columns(metric=metric, layer=layer, start=start, size=size))
            start += size
        return cls(columns=tuple(columns))

    @cached_property
    def width(self) -> int:
        """Number of columns."""
        return sum(column.size for column in self.columns)

    @cached_property
    def _by_metric(self) -> dict[str, list[Columns]]:
        found: dict[str, list[Columns]] = {}
        for column in self.columns:
            found.setdefault(column.metric, []).append(column)
        return found

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics in the order of the glossary, unknown ones last."""
        known = list(METRICS)
        return tuple(sorted(self._by_metric, key=lambda name: known.index(name) if name in METRICS else len(known)))

    def of_metric(self, metric: str) -> list[Columns]:
        """Return the columns of ``metric``, layers in the order of a pass; empty where it is not recorded."""
        return self._by_metric.get(metric, [])

    def layers(self, metric: str) -> list[str | None]:
        """Return the layers that record ``metric``, in the order of a pass."""
        return [column.layer for column in self.of_metric(metric)]


class Spot(NamedTuple):
    """The layer and head of a column."""

    layer: str | None
    head: int | None


class Logged(NamedTuple):
    """A number that the training logged at a step that is no sample."""

    step: int
    time: float
    """Seconds since the epoch."""
    metric: str
    value: float


class Series(NamedTuple):
    """Some samples of one metric: S rows in the order of their steps, C columns of layers or heads.

    Downsampled rows are buckets of equally many neighbouring samples: ``steps`` and ``times`` are those of a bucket's
    first sample, ``values`` its mean, ``low`` and ``high`` its extremes. A NaN in a bucket makes ``values`` NaN and
    leaves ``low`` and ``high`` to the other numbers; a bucket without a measurement is ``MISSING`` in all three.
    """

    metric: str
    spots: Sequence[Spot]
    steps: npt.NDArray[np.int64]
    values: Floats
    """[S, C], as are ``low`` and ``high``, which are None where a row is one sample."""
    low: Floats | None = None
    high: Floats | None = None
    cursor: int | None = None
    """The argument of ``RunReader.after`` for the samples that come after these, where they are read from a run."""
    times: npt.NDArray[np.float64] | None = None
    """Seconds since the epoch [S], where they are read from a run."""


def over_heads(metric: str, values: Floats) -> Floats:
    """Reduce ``values`` [..., heads] to one number a layer [...], as the glossary says for ``metric``.

    Missing heads are left out; a layer whose heads are all missing is ``MISSING``. NaN stays NaN.
    """
    how = METRICS[metric].over_heads if metric in METRICS else OverHeads.MEAN
    absent = is_missing(values)
    if not absent.any():
        return _reduced(how, values, values.shape[-1])
    count = (~absent).sum(axis=-1)
    neutral = np.float32(-np.inf if how is OverHeads.MAX else 0)
    return np.where(count == 0, MISSING, _reduced(how, np.where(absent, neutral, values), np.maximum(count, 1)))


def _reduced(how: OverHeads, values: Floats, count: int | npt.NDArray[np.int64]) -> Floats:
    """Reduce ``values`` [..., heads], of which ``count`` were measured, in float64."""
    with np.errstate(all="ignore"):
        if how is OverHeads.MAX:
            return cast(Floats, values.max(axis=-1))
        if how is OverHeads.MEAN:
            result = values.sum(axis=-1, dtype=np.float64) / count
        else:
            squares = np.einsum("...h,...h->...", values, values, dtype=np.float64)
            result = np.sqrt(squares if how is OverHeads.ROOT_SUM_SQUARE else squares / count)
    narrow: Floats = result.astype(np.float32)
    return narrow


def worst(series: Series) -> Series:
    """Return one value a cell: of a bucket's bounds the one furthest from healthy, so that no spike is averaged away.

    Furthest is by ratio where the glossary knows a healthy value, else the larger magnitude. A NaN in a bucket wins.
    """
    if series.low is None or series.high is None:
        return series
    metric = METRICS.get(series.metric)
    healthy = metric.healthy if metric else None
    with np.errstate(all="ignore"):
        if healthy:
            take_low = healthy / np.abs(series.low) > np.abs(series.high) / healthy
        else:
            take_low = np.abs(series.low) > np.abs(series.high)
    extreme = np.where(take_low, series.low, series.high)
    spoiled = np.isnan(series.values) & ~is_missing(series.values)
    return series._replace(values=np.where(spoiled, series.values, extreme), low=None, high=None)
