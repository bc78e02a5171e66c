"""Series as bytes: float32 with every NaN, infinity and ``MISSING`` kept bit for bit, which JSON cannot do.

A packed series is, all little-endian:

1. uint32: length of the header in bytes, a multiple of 8;
2. uint32: the version of this format, 1;
3. the header, JSON padded with spaces: ``metric``, ``steps`` (S), ``columns`` (C objects ``{layer, head}``), ``parts``,
   and ``cursor``, from which a live stream goes on (null in a stream's own points);
4. float64 [S]: the steps, exact up to 2^53;
5. for each name in ``parts`` one float32 [C, S]: ``values``; ``low`` and ``high`` too where a point is a bucket.
"""

import json
import struct

import numpy as np
from pydantic_core import to_json

from stabmon.metrics import Place, describe
from stabmon.records import Record
from stabmon.series import Floats, Series, Spot, is_missing

FORMAT = 1
"""Version of the packed format."""
MEDIA_TYPE = "application/vnd.stabmon.series"


class ColumnOf(Record):
    """The layer and head of a column; None where it stands for all of them."""

    layer: str | None
    head: int | None


class JsonSeries(Record):
    """A series as JSON: one list a column, null where nothing was measured, "NaN" and "Infinity" as words."""

    metric: str
    unit: str
    columns: tuple[ColumnOf, ...]
    """C columns."""
    steps: tuple[int, ...]
    """S steps; of a bucket the first."""
    times: tuple[float, ...]
    """Seconds since the epoch, of the same samples."""
    values: tuple[tuple[float | None, ...], ...]
    """[C, S]; of a bucket the mean."""
    low: tuple[tuple[float | None, ...], ...] | None
    """[C, S], the lowest of each bucket; null where a point is one sample."""
    high: tuple[tuple[float | None, ...], ...] | None
    """[C, S], the highest of each bucket."""
    cursor: int | None
    """The cursor from which a live stream goes on."""


def as_json(series: Series) -> bytes:
    """Return ``series`` in the form of ``JsonSeries``."""
    place = Place.LAYER if series.spots[0].layer else Place.RUN
    form = {
        "metric": series.metric,
        "unit": describe(series.metric, place).unit,
        "columns": [spot._asdict() for spot in series.spots],
        "steps": series.steps.tolist(),
        "times": [] if series.times is None else series.times.tolist(),
        "values": _lists(series.values),
        "low": None if series.low is None else _lists(series.low),
        "high": None if series.high is None else _lists(series.high),
        "cursor": series.cursor,
    }
    return to_json(form, inf_nan_mode="strings")


def _lists(values: Floats) -> list[list[float | None]]:
    missing = is_missing(values).T.tolist()
    columns = zip(values.T.tolist(), missing, strict=True)
    return [[None if no else value for value, no in zip(*column, strict=True)] for column in columns]


def pack(series: Series) -> bytes:
    """Return ``series`` in the format of this module."""
    parts = {"values": series.values}
    if series.low is not None and series.high is not None:
        parts |= {"low": series.low, "high": series.high}
    header = {
        "metric": series.metric,
        "steps": len(series.steps),
        "columns": [spot._asdict() for spot in series.spots],
        "parts": list(parts),
        "cursor": series.cursor,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = [np.ascontiguousarray(part.T, dtype="<f4").tobytes() for part in parts.values()]
    return b"".join([struct.pack("<II", len(text), FORMAT), text, series.steps.astype("<f8").tobytes(), *body])


def unpack(data: bytes) -> Series:
    """Return the series that ``pack`` wrote; for Python clients and tests.

    Raises:
        ValueError: ``data`` is of another format.
    """
    length, version = struct.unpack_from("<II", data)
    if version != FORMAT:
        raise ValueError(f"expected a packed series of format {FORMAT}, got format {version}: use a matching stabmon")
    header = json.loads(data[8 : 8 + length])
    count, columns = header["steps"], len(header["columns"])
    steps = np.frombuffer(data, "<f8", count, 8 + length).astype(np.int64)
    start = 8 + length + 8 * count
    parts = {
        name: np.frombuffer(data, "<f4", count * columns, start + 4 * count * columns * index).reshape(columns, count).T
        for index, name in enumerate(header["parts"])
    }
    spots = [Spot(**column) for column in header["columns"]]
    low, high = parts.get("low"), parts.get("high")
    return Series(header["metric"], spots, steps, parts["values"], low, high, header["cursor"])
