"""The end of the program closes the monitors that their user forgot to close."""

import atexit
import sys
import weakref
from typing import Protocol

from stabmon.records import RunState


class _Endable(Protocol):
    def end_with_program(self, state: RunState) -> None: ...


_open: "weakref.WeakSet[_Endable]" = weakref.WeakSet()


def closes(monitor: _Endable) -> None:
    """Let ``monitor`` be ended when the program ends; one that is forgotten altogether ends when it is collected."""
    _open.add(monitor)
    come_first()


def come_first() -> None:
    """Let monitors end before what was registered up to now: before their recorders, whose module is loaded late."""
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)


def _at_exit() -> None:
    state = RunState.FAILED if hasattr(sys, "last_value") else RunState.FINISHED
    for monitor in tuple(_open):
        monitor.end_with_program(state)
