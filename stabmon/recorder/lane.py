"""A thread for one receiver of a run, a sink or the rules: one that hangs, fails or exits holds up nobody else."""

import ctypes
import queue
import threading
import time as clock
from collections.abc import Callable
from typing import Any

CAPACITY = 1024
"""Calls that may wait for a receiver; samples beyond them are lost to it, and counted."""

_END = "end"
_Call = tuple[Callable[..., None], tuple[Any, ...]]


class Lane:
    """Makes calls of one receiver in order, in a thread of its own.

    failed: called in that thread with what a call raised; ``BaseException`` too, since an exit ends no training.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None], capacity: int = CAPACITY) -> None:
        self.name = name
        self.lost = 0
        """Samples that were not handed over because ``capacity`` calls waited."""
        self.seconds = 0.0
        """Processor time of the thread so far."""
        self._handed = self._taken = 0
        self._failed, self._capacity = failed, capacity
        self._calls: queue.SimpleQueue[_Call | str] = queue.SimpleQueue()
        self._since: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"stabmon {name}", daemon=True)

    def start(self) -> None:
        """Begin to make calls."""
        self._thread.start()

    def put(self, call: Callable[..., None], *arguments: Any) -> bool:
        """Let ``call`` be made; return False where too many wait, and forget it."""
        if self._calls.qsize() >= self._capacity:
            return False
        self._calls.put((call, arguments))
        return True

    def sample(self, call: Callable[..., None], *arguments: Any) -> None:
        """Let ``call`` be made for a sample; one that cannot wait is counted as lost."""
        if self.put(self._hand, call, arguments):
            self._handed += 1
        else:
            self.lost += 1

    def _hand(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        try:
            call(*arguments)
        finally:
            self._taken += 1

    def drained(self, timeout: float) -> bool:
        """Wait until all calls so far are made; return whether that took less than ``timeout`` s."""
        if not self._thread.is_alive():
            return True
        reached = threading.Event()
        self._calls.put((lambda: reached.set(), ()))
        return reached.wait(max(timeout, 0.0))

    def end(self, *last: _Call) -> None:
        """End the thread after the calls that wait and ``last``; nothing is handed over after this."""
        for call in last:
            self._calls.put(call)
        self._calls.put(_END)

    def ended(self, patience: float) -> bool:
        """Wait until the thread has ended; return False where one call takes longer than ``patience`` s."""
        while self._thread.is_alive():
            if self.busy > patience:
                return False
            self._thread.join(0.05)
        return True

    @property
    def busy(self) -> float:
        """Seconds since the present call began, or 0 between calls."""
        since = self._since
        return 0.0 if since is None else clock.monotonic() - since

    @property
    def waiting(self) -> int:
        """Samples that were handed over and not taken yet, the present one included."""
        return self._handed - self._taken

    def interrupt(self) -> None:
        """Raise ``TimeoutError`` in the present call, at its next line of Python; C code is not interrupted."""
        if self._since is not None and self._thread.ident is not None:
            thread, error = ctypes.c_ulong(self._thread.ident), ctypes.py_object(TimeoutError)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)

    def _work(self) -> None:
        while self._thread.is_alive():
            try:
                self._serve()
            except TimeoutError as error:  # of ``interrupt``, when the call had ended just before
                self._since = None
                self._failed(error)
            else:
                return

    def _serve(self) -> None:
        while not isinstance(made := self._calls.get(), str):
            call, arguments = made
            self._since = clock.monotonic()
            try:
                call(*arguments)
            except BaseException as error:
                self._failed(error)
            self._since = None
            self.seconds = clock.thread_time()
