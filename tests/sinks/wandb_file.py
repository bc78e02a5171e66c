"""Records of an offline run of Weights & Biases: a log in LevelDB's format, of protocol buffers."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER, LAST = 32768, 7, (1, 4)
"""Bytes of a block and of a record's header, and the kinds of a record's last part."""


def records(folder: Path) -> Iterator[Record]:
    """Yield the records of the only run in ``folder``."""
    (path,) = folder.rglob("*.wandb")
    data, at, record = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        record += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in LAST:
            yield Record.FromString(record)
            record = b""


def is_whole(folder: Path) -> bool:
    """Return whether the process that writes the file has written the run's end."""
    return any(record.WhichOneof("record_type") == "exit" for record in records(folder))


def history(folder: Path) -> list[dict[str, object]]:
    """Return the logged rows."""
    rows = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item} for row in rows]


def alerts(folder: Path) -> list[tuple[str, str, str]]:
    """Return level, title and text of each alert."""
    found = [record.alert for record in records(folder) if record.WhichOneof("record_type") == "alert"]
    return [(alert.level, alert.title, alert.text) for alert in found]
