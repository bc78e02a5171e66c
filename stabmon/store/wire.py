"""Samples as they travel to a server: whole rows in float32, every NaN bit for bit, with what was logged between.

A batch is, all little-endian: uint32, the length of the header; uint32, the version of this format, 1; the header, JSON
with ``first`` (sequence of the first sample), ``samples`` (S), ``width`` (W), ``metrics`` (names of what was logged)
and ``logged`` (L); int64 [S], the steps; float64 [S], the times; uint32 [S + 1], how many numbers were logged before
each sample and after the last; float32 [S, W], the rows; and L logged numbers as ``LOGGED``.
"""

import json
import struct
from typing import Any, NamedTuple

import numpy as np

from stabmon.names import legible
from stabmon.series import Logged
from stabmon.store.live import New
from stabmon.store.writer import NewSample

FORMAT = 1
MEDIA_TYPE = "application/octet-stream"
LOGGED = np.dtype([("step", "<i8"), ("time", "<f8"), ("metric", "<u2"), ("value", "<f4")])
MOST_SAMPLES = 10_000
"""Most samples of a batch."""


class SampleBatch(NamedTuple):
    """Consecutive samples of a run."""

    first: int
    rows: tuple[NewSample, ...]
    later: tuple[Logged, ...] = ()
    """Numbers logged after the last of them."""


def batch_of(new: New, *, whole: bool) -> SampleBatch:
    """Return what is new of a run as a batch; ``whole``: with what was logged since the last sample."""
    count = len(new.steps)
    columns = (new.steps.tolist(), new.times.tolist(), new.rows, map(new.before, range(count)))
    rows = tuple(NewSample(*row) for row in zip(*columns, strict=True))
    return SampleBatch(new.cursor - count, rows, new.before(count) if whole else ())


def pack(batch: SampleBatch, width: int) -> bytes:
    """Return ``batch`` in the format of this module."""
    between = [*(row.logged for row in batch.rows), batch.later]
    every = [one for some in between for one in some]
    metrics = list(dict.fromkeys(one.metric for one in every))
    about = {"first": batch.first, "samples": len(batch.rows), "width": width, "metrics": metrics, "logged": len(every)}
    header = json.dumps(about, separators=(",", ":")).encode()
    records = [(one.step, one.time, metrics.index(one.metric), one.value) for one in every]
    parts = (
        np.array([row.step for row in batch.rows], "<i8"),
        np.array([row.time for row in batch.rows], "<f8"),
        np.array([len(some) for some in between], "<u4"),
        np.array([row.values for row in batch.rows], "<f4"),
        np.array(records, LOGGED),
    )
    return b"".join([struct.pack("<II", len(header), FORMAT), header, *(part.tobytes() for part in parts)])


def unpack(data: bytes, width: int) -> SampleBatch:
    """Return the batch that ``pack`` wrote, of a run whose rows have ``width`` columns.

    Raises:
        ValueError: it is something else; the message says what was expected.
    """
    about, start = _header(data)
    count, logged = about["samples"], about["logged"]
    if about["width"] != width:
        raise ValueError(f"rows of this run have {width} columns, got {about['width']}")
    kinds = (("<i8", count), ("<f8", count), ("<u4", count + 1), ("<f4", count * width), (LOGGED, logged))
    length = start + sum(np.dtype(kind).itemsize * number for kind, number in kinds)
    if len(data) != length:
        raise ValueError(
            f"a batch of {count} samples and {logged} logged numbers takes {length} bytes, got {len(data)}"
        )
    parts = []
    for kind, number in kinds:
        parts.append(np.frombuffer(data, kind, number, start))
        start += np.dtype(kind).itemsize * number
    steps, times, counts, rows, records = parts
    if counts.sum() != logged or (logged and records["metric"].max() >= len(about["metrics"])):
        raise ValueError("the counts of logged numbers do not fit what was logged")
    if not np.isfinite(times).all():
        raise ValueError("times must be finite")
    every = [Logged(s, t, about["metrics"][m], v) for s, t, m, v in records.tolist()]
    ends = np.cumsum(counts.astype(np.int64)).tolist()
    between = [tuple(every[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    columns = (steps.tolist(), times.tolist(), rows.reshape(count, width).astype(np.float32), between[:-1])
    return SampleBatch(about["first"], tuple(NewSample(*row) for row in zip(*columns, strict=True)), between[-1])


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    if len(data) < 8:
        raise ValueError("expected a batch of samples, got less than its first 8 bytes")
    length, version = struct.unpack_from("<II", data)
    if version != FORMAT:
        raise ValueError(f"expected a batch of format {FORMAT}, got format {version}: use a matching stabmon")
    try:
        about = json.loads(data[8 : 8 + length])
        numbers = [about[name] for name in ("first", "samples", "width", "logged")]
        names = about["metrics"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("the header of a batch must be JSON with first, samples, width, metrics and logged") from None
    if not all(type(one) is int and 0 <= one < 2**63 for one in numbers) or numbers[1] > MOST_SAMPLES:
        raise ValueError(f"numbers of the header must be from 0 on, and samples at most {MOST_SAMPLES}, got {numbers}")
    if not isinstance(names, list) or not all(isinstance(one, str) and _is_name(one) for one in names):
        raise ValueError("metrics must be a list of names")
    return about, 8 + length


def _is_name(text: str) -> bool:
    """Return whether a store can write ``text``: it is not empty, and each of its characters has a form in UTF-8."""
    return bool(text) and "\0" not in text and legible(text) == text
