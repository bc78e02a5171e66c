"""Processes that never outlive the one that started them, however that one ends."""

import os
import signal
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Make this spawned process end at once when its parent dies, by any signal, and leave Ctrl-C to the parent."""
    parent = parent_process()
    assert parent is not None, "only a process that multiprocessing started has a parent to follow"
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True, name="stabmon-follows-parent").start()
