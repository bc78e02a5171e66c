"""The thread that keeps a server's copy of a run up to date: repeated with back-off, and taken up after a death.

A run that is being sent has the file ``run.remote``, which names the server, until the server has all of it. Whoever
holds ``remote.lock`` sends it; where nobody does and the file is there, another process that sends to the same server
goes on.
"""

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from stabmon.errors import StabmonError, StoreError
from stabmon.remote.client import Client, Refused
from stabmon.remote.copy import Copy
from stabmon.store import FILE
from stabmon.store.owner import Owner, holder

UNSENT = "run.remote"
"""Name of the file of a run that is not sent whole yet."""
LOCK = "remote.lock"
PACE = 1.0
"""Seconds between two looks at the run."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds after a failure, doubled with each further one."""


class Sender:
    """Sends the run in ``folder`` from a thread of its own, then what other processes left unsent beside it.

    failed: receives what went wrong, once for each kind of failure; called in the thread.
    spool: remove the folder once the server has all of it.
    """

    def __init__(
        self, folder: Path, client: Client, failed: Callable[[str], None], *, spool: bool = False, pace: float = PACE
    ) -> None:
        self.copy = Copy(folder, client)
        self._spool = spool
        self._client, self._failed, self._pace = client, failed, pace
        self._hurry, self._stop = threading.Event(), threading.Event()
        self._said: set[str] = set()
        self._failures = 0
        self._thread = threading.Thread(target=self._work, daemon=True, name="stabmon sender")

    def start(self) -> None:
        """Note that the run is to be sent, and begin."""
        self.copy.folder.joinpath(UNSENT).write_text(self._client.address + "\n", encoding="utf-8")
        self._thread.start()

    def end(self, patience: float) -> bool:
        """Wait at most ``patience`` s until the server has all of a run that has ended; return whether it has."""
        deadline = time.monotonic() + patience
        while not self.copy.ended and self._thread.is_alive() and time.monotonic() < deadline:
            self._hurry.set()
            time.sleep(0.05)
        self._stop.set()
        self._hurry.set()
        self._thread.join(max(0.0, min(2.0, deadline - time.monotonic())))
        return self.copy.ended

    def abandon(self) -> None:
        """Stop, and leave nothing to be sent: the run has not begun."""
        self.end(0.0)
        self._thread.join(2.0)
        self.copy.folder.joinpath(UNSENT).unlink(missing_ok=True)

    def _work(self) -> None:
        folder = self.copy.folder
        owner = _held(folder)
        if owner is None:
            self._failed(f"{folder} is being sent by another process already")
            return
        try:
            self._follow(self.copy)
        finally:
            owner.release(ended=True)
        for left in _left_beside(folder, self._client.address):
            self._send_left(left)
        self._client.close()

    def _follow(self, copy: Copy) -> None:
        """Send until the run has ended and is sent, or nobody waits any more."""
        while not self._stop.is_set():
            pause = self._pace if self._attempt(copy) else self._pause()
            if copy.ended:
                self._forget(copy.folder)
                break
            self._hurry.wait(pause if not self._stop.is_set() else 0.0)
            self._hurry.clear()
        copy.close()

    def _send_left(self, folder: Path) -> None:
        """Send once what a process that died has left; what fails is left to the next one."""
        owner = _held(folder)
        if owner is None:
            return
        copy = Copy(folder, self._client)
        try:
            if self._attempt(copy) and copy.ended:
                self._forget(folder)
        finally:
            copy.close()
            owner.release(ended=True)

    def _forget(self, folder: Path) -> None:
        """Note that the server has all of a run."""
        folder.joinpath(UNSENT).unlink(missing_ok=True)
        if self._spool:
            shutil.rmtree(folder, ignore_errors=True)

    def _attempt(self, copy: Copy) -> bool:
        """Send what is new; return whether that succeeded."""
        try:
            copy.send()
        except StoreError as error:
            if (copy.folder / FILE).exists():  # before that there is nothing to be sent
                self._say("file", str(error))
            copy.close()
            return False
        except Refused as error:
            if error.status == 409 and copy.name is None and self._failures < 2:  # it is opened again at once
                self._failures += 1
                return False
            self._say(f"status {error.status}", str(error))
            return False
        except StabmonError as error:
            self._say("server", str(error))
            return False
        except Exception as error:  # the thread goes on, or what comes later would not be sent either
            self._say(type(error).__name__, repr(error))
            copy.close()
            return False
        self._failures = 0
        return True

    def _pause(self) -> float:
        self._failures += 1
        doubled = FIRST_PAUSE * 2.0 ** min(self._failures - 1, 10)
        return min(LONGEST_PAUSE, doubled) * random.Random().uniform(0.7, 1.3)

    def _say(self, kind: str, text: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            self._failed(text)


def _held(folder: Path) -> Owner | None:
    try:
        return Owner(folder, LOCK)
    except (OSError, StoreError):
        return None


def _left_beside(folder: Path, address: str) -> Iterator[Path]:
    """Yield the folders beside ``folder`` of runs that ended, or whose process died, before they were sent whole."""
    for file in sorted(folder.parent.glob(f"*/{UNSENT}")):
        try:
            is_ours = file.read_text(encoding="utf-8").strip() == address
        except (OSError, UnicodeDecodeError):
            continue
        if file.parent != folder and is_ours and not holder(file.parent):
            yield file.parent
