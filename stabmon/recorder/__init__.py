"""From the training thread to the sinks: one queue and one writer thread."""

from stabmon.recorder.recorder import Recorder

__all__ = ["Recorder"]
