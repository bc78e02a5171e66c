"""TensorBoard's event file, written straight: no torch, no TensorFlow, one write a step, whole records or none."""

import io
import os
import socket
import time as clock
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.custom_scalar.metadata import PLUGIN_NAME as CUSTOM_SCALARS
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.image.metadata import create_summary_metadata
from tensorboard.plugins.text.metadata import PLUGIN_NAME as TEXT
from tensorboard.summary.writer.record_writer import RecordWriter

_number = count()


class EventFile:
    """One event file in ``folder``, named as TensorBoard expects it.

    A write that fails leaves the file as it was before, because a reader stops for good at half a record.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(clock.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_number)}"
        self.path = folder / name
        self._file = self.path.open("xb", buffering=0)
        self._length = 0
        self._write([Event(wall_time=clock.time(), file_version="brain.Event:2")])

    def add(self, step: int, time: float, values: Iterable[Summary.Value], *, restart: bool = False) -> None:
        """Write ``values`` for ``step``; ``restart`` makes readers first discard what they have from this step on."""
        events = [Event(wall_time=time, step=step, summary=Summary(value=values))]
        if restart:
            events.insert(0, Event(wall_time=time, step=step, session_log=SessionLog(status=SessionLog.START)))
        self._write(events)

    def check(self) -> None:
        """Raise ``OSError`` where the file was deleted: what is written to it now is seen by nobody."""
        if not os.fstat(self._file.fileno()).st_nlink:
            raise OSError(f"{self.path} was deleted while the run was written")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, events: Iterable[Event]) -> None:
        records = io.BytesIO()
        writer = RecordWriter(records)
        for event in events:
            writer.write(event.SerializeToString())
        data = records.getvalue()
        if self._file.write(data) != len(data):
            self._file.truncate(self._length)
            self._file.seek(self._length)
            raise OSError(f"{self.path} took only a part of a record: is the disk full?")
        self._length += len(data)


def scalar(tag: str, value: float) -> Summary.Value:
    """Return one point of a curve; NaN stays NaN, which TensorBoard marks with a triangle."""
    return Summary.Value(tag=tag, simple_value=value)


def image(tag: str, png: bytes, height: int, width: int, description: str) -> Summary.Value:
    """Return an encoded image; ``description`` is markdown."""
    metadata = create_summary_metadata(display_name=tag, description=description)
    parts = [str(width).encode(), str(height).encode(), png]
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(parts))])
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=parts)
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def text(tag: str, markdown: str) -> Summary.Value:
    """Return a text, shown as markdown."""
    return _strings(tag, TEXT, markdown.encode())


def layout(categories: dict[str, dict[str, str]]) -> Summary.Value:
    """Return the layout of the custom-scalars page: per category, chart titles with the pattern of their tags."""
    made = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title=title,
                chart=[
                    layout_pb2.Chart(title=chart, multiline=layout_pb2.MultilineChartContent(tag=[pattern]))
                    for chart, pattern in charts.items()
                ],
            )
            for title, charts in categories.items()
        ]
    )
    return _strings(CONFIG_SUMMARY_TAG, CUSTOM_SCALARS, made.SerializeToString())


def hyperparameters(settings: Mapping[str, object], run: str) -> list[Summary.Value]:
    """Return what the page of hyperparameters shows of a run."""
    plain = {
        key: value if isinstance(value, str | bool | int | float) else str(value) for key, value in settings.items()
    }
    return list(hparams_pb(plain, trial_id=run).value)


def _strings(tag: str, plugin: str, value: bytes) -> Summary.Value:
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=plugin))
    return Summary.Value(tag=tag, metadata=metadata, tensor=TensorProto(dtype=DT_STRING, string_val=[value]))
