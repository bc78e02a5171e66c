"""Where a run goes: the store, TensorBoard, the console; each takes the same rows and findings."""

from stabmon.sinks.protocol import Beating, Sink
from stabmon.sinks.store import StoreSink

__all__ = ["Beating", "Sink", "StoreSink"]
