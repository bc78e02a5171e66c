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

from stabmon.metrics import METRICS
from stabmon.series import Series, Spot, is_missing

FORMAT = 1
MEDIA_TYPE = "application/vnd.stabmon.series"


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
