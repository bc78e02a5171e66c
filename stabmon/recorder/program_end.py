"""The end of the program closes the recorders that are open, as failed when an exception ends it."""

import atexit
import sys
import weakref
from typing import Protocol

from stabmon.records import RunState


class _Closable(Protocol):
    def close(self, state: RunState, timeout: float) -> None: ...

    def join(self) -> None: ...


_open: "weakref.WeakSet[_Closable]" = weakref.WeakSet()


def closes(recorder: _Closable) -> None:
    """Let ``recorder`` be closed when the program ends."""
    _open.add(recorder)


def _at_exit() -> None:
    open_ones = tuple(_open)
    for recorder in open_ones:
        recorder.close(RunState.FAILED if hasattr(sys, "last_value") else RunState.FINISHED, timeout=0)
    for recorder in open_ones:
        recorder.join()


atexit.register(_at_exit)
