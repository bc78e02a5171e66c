"""Zooming out without losing a spike or a NaN: low, mean and high of a bucket of samples, and how many were measured.

A number that was not measured (``MISSING``) counts for nothing. A bucket in which nothing was measured is ``MISSING``
in all three. A NaN in a bucket makes its mean NaN, which is the mark to look for; low and high are those of the other
numbers, and are NaN only where all are. An infinity is seen in low or high, and in the mean.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.series import MISSING, Floats, is_missing

PACKED = np.dtype([("low", "<f4"), ("mean", "<f4"), ("high", "<f4"), ("measured", "u1")])
"""One bucket of one column as it lies in a blob;
``measured`` is at most ``schema.FOLD``, 128."""


class Buckets(NamedTuple):
    """Neighbouring buckets of samples, [buckets, columns]; ``measured`` is the number of samples that count."""

    low: Floats
    mean: Floats
    high: Floats
    measured: npt.NDArray[np.int64]


def single(values: Floats) -> Buckets:
    """Return ``values`` [samples, columns] as buckets of one sample each."""
    return Buckets(values, values, values, (~is_missing(values)).astype(np.int64))


def merged(buckets: Buckets, starts: npt.NDArray[np.intp]) -> Buckets:
    """Merge neighbours: each result begins at one of ``starts`` (ascending from 0) and ends before the next."""
    low, mean, high, count = buckets
    counts = np.add.reduceat(count, starts, axis=0)
    with np.errstate(all="ignore"):
        total = np.where(count == 0, 0.0, mean.astype(np.float64) * count)
        means = (np.add.reduceat(total, starts, axis=0) / np.maximum(counts, 1)).astype(np.float32)
        lows = np.fmin.reduceat(_quiet(low), starts, axis=0)
        highs = np.fmax.reduceat(_quiet(high), starts, axis=0)
    return Buckets(_marked(lows, counts), _marked(means, counts), _marked(highs, counts), counts)


def of_size(values: Floats, size: int) -> Buckets:
    """Return buckets of ``size`` neighbouring samples of ``values`` [samples, columns]; the last may hold fewer."""
    samples, columns = values.shape
    padding = np.full((-samples % size, columns), MISSING, dtype=np.float32)
    padded = np.concatenate([values, padding]) if len(padding) else values
    blocks = padded.reshape(-1, size, columns)
    with np.errstate(all="ignore"):
        if not np.isnan(blocks).any():
            mean = blocks.mean(axis=1, dtype=np.float64).astype(np.float32)
            return Buckets(blocks.min(axis=1), mean, blocks.max(axis=1), np.full(mean.shape, size, dtype=np.int64))
        absent = is_missing(blocks)
        measured = size - absent.sum(axis=1)
        total = np.where(absent, np.float32(0), blocks).sum(axis=1, dtype=np.float64)
        mean = (total / np.maximum(measured, 1)).astype(np.float32)
        quiet = _quiet(blocks)
        low, high = np.fmin.reduce(quiet, axis=1), np.fmax.reduce(quiet, axis=1)
    return Buckets(_marked(low, measured), _marked(mean, measured), _marked(high, measured), measured)


def pack(buckets: Buckets) -> npt.NDArray[np.void]:
    """Return ``buckets`` as [columns, buckets] of ``PACKED``, ready to be a blob."""
    packed = np.empty(buckets.low.T.shape, dtype=PACKED)
    packed["low"], packed["mean"], packed["high"] = buckets.low.T, buckets.mean.T, buckets.high.T
    packed["measured"] = buckets.measured.T
    return packed


def unpack(blob: bytes, columns: int) -> Buckets:
    """Return what ``pack`` put into ``blob`` for that many columns."""
    packed = np.frombuffer(blob, dtype=PACKED).reshape(columns, -1).T
    low, mean, high = (np.ascontiguousarray(packed[name]) for name in ("low", "mean", "high"))
    return Buckets(low, mean, high, packed["measured"].astype(np.int64))


def _quiet(values: Floats) -> Floats:
    """Return ``values`` with the plain NaN for every NaN: a signalling one would win over the numbers of its bucket."""
    return np.where(np.isnan(values), np.float32(np.nan), values)


def _marked(values: Floats, counts: npt.NDArray[np.int64]) -> Floats:
    """Return ``values`` with ``MISSING`` where nothing was counted, and the plain NaN for every other NaN."""
    return np.where(counts == 0, MISSING, _quiet(values))
