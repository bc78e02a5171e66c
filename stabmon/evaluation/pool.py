"""Many tasks at once, each in a spawned process; the first that fails ends the others, with its own error.

No process outlives the block: an error or Ctrl-C ends them at once, and they end themselves when this process dies.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from types import TracebackType
from typing import Self, TypeVar

from stabmon.child_process import end_with_parent

Given = TypeVar("Given")
Made = TypeVar("Made")


class Pool:
    """``jobs`` processes that share the cores; one job runs in this process. A context manager."""

    def __init__(self, jobs: int) -> None:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        context = get_context("spawn")
        self._others = set(active_children())
        self._executor = ProcessPoolExecutor(jobs, context, _begin, (threads,)) if jobs > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._executor is not None:
            if kind is not None:
                for worker in set(active_children()) - self._others:
                    worker.kill()
            self._executor.shutdown(wait=True, cancel_futures=True)

    def each(self, task: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """Yield ``task`` of each of ``given`` as it is finished, in any order."""
        if self._executor is None:
            yield from map(task, given)
            return
        for future in as_completed([self._executor.submit(task, one) for one in given]):
            yield future.result()


def _begin(threads: int) -> None:
    """Prepare a worker."""
    end_with_parent()
    import torch

    torch.set_num_threads(threads)
