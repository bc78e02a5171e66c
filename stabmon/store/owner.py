"""One writer a run, across processes: a lock on the run's folder, which the system takes back from a dead process."""

import fcntl
import os
from pathlib import Path

from stabmon.errors import StoreError


class Owner:
    """Holds the folder of a run until ``release``; a file system without such locks holds nothing.

    Raises:
        StoreError: another writer holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: int | None = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise StoreError(
                f"the run at {folder} is being written by another monitor: close that one first, or give another name"
            ) from error
        except OSError:
            self.release()

    def release(self) -> None:
        """Let another writer have the run; a second call does nothing."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None
