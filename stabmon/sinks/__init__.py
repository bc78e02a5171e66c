"""Destinations of a run: the store, TensorBoard, the console; each takes the same rows and findings."""

from stabmon.sinks.console import ConsoleSink
from stabmon.sinks.protocol import Beating, Resuming, Sink
from stabmon.sinks.store import StoreSink
from stabmon.sinks.tensorboard import TensorBoardSink
from stabmon.sinks.tracker import TrackerSink, active_trackers

__all__ = [
    "Beating",
    "ConsoleSink",
    "Resuming",
    "Sink",
    "StoreSink",
    "TensorBoardSink",
    "TrackerSink",
    "active_trackers",
]
