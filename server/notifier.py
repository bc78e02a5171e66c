"""The thread that looks at the runs and gives what happened to the webhooks."""

import threading
from collections.abc import Callable, Sequence

from stabmon.errors import StoreError
from stabmon.server.fleet import Fleet
from stabmon.server.notices import Observer
from stabmon.server.webhooks import ENDING, Webhook

LOOK = 2.0
"""Seconds between two looks at the runs."""


class Notifier:
    """Looks at the runs of ``fleet`` for the length of a block."""

    def __init__(self, fleet: Fleet, webhooks: Sequence[Webhook], announce: Callable[[str], None]) -> None:
        self._fleet, self._webhooks, self._announce = fleet, webhooks, announce
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="stabmon notices")

    def __enter__(self) -> "Notifier":
        for one in self._webhooks:
            one.start()
        if self._webhooks:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        if self._webhooks:
            self._thread.join(ENDING)
        for one in self._webhooks:
            one.close()

    def _run(self) -> None:
        observer = Observer()
        while True:
            try:
                notices = observer.look(self._fleet.now())
            except StoreError as error:  # the folder cannot be listed now
                self._announce(f"webhooks: {error}")
                notices = []
            for one in self._webhooks if notices else ():
                one.put(notices)
            if self._stopping.wait(LOOK):
                return
