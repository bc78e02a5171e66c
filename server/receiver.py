"""The runs that this server receives: one writer each, opened by their senders, at most one request at a time."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from stabmon.records import RunInfo
from stabmon.series import Layout
from stabmon.store import RunWriter
from stabmon.store.interface import Store
from stabmon.store.place import RunGone

MOST_OPEN = 256
"""Most runs whose writers are kept open; a sender opens its run again when it was closed."""


class Receiver:
    """Writers by the names of their runs. Another server may receive the same runs: see ``WritePlace.is_shared``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: OrderedDict[str, tuple[RunWriter, threading.Lock]] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, info: RunInfo, layout: Layout) -> tuple[str, int]:
        """Open or make the run that ``info`` describes; return its name in the store, and its number of samples.

        Raises:
            StoreError: it cannot be written.
        """
        name, writer = self._store.receive(info, layout)
        self.forget(name)
        with self._lock:
            self._open[name] = (writer, threading.Lock())
            extra = [self._open.popitem(last=False)[1] for _ in range(len(self._open) - MOST_OPEN)]
        for one, lock in extra:
            with lock:
                one.target.close(ended=False)
        return name, writer.samples

    @contextmanager
    def writing(self, name: str) -> Iterator[RunWriter | None]:
        """Yield the writer of a run for one request, or None where it is not open here.

        Raises:
            StoreError: of the writer; a run that is gone is closed.
        """
        with self._lock:
            found = self._open.get(name)
            if found is not None:
                self._open.move_to_end(name)
        if found is None:
            yield None
            return
        writer, lock = found
        with lock:
            if self._open.get(name) is not found:  # it was closed while another request was made
                yield None
                return
            try:
                yield writer
            except RunGone:
                self._take(name)
                writer.target.close(ended=False)
                raise

    def forget(self, name: str) -> None:
        """Close a run's writer, if it is open."""
        found = self._take(name)
        if found is not None:
            with found[1]:
                found[0].target.close(ended=False)

    def close(self) -> None:
        """Close all writers."""
        for name in list(self._open):
            self.forget(name)

    def _take(self, name: str) -> tuple[RunWriter, threading.Lock] | None:
        with self._lock:
            return self._open.pop(name, None)
