"""Many tasks at once, each in a spawned process; the first that fails ends the others, with its own error."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from types import TracebackType
from typing import Self, TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


class Pool:
    """``jobs`` processes that share the cores; one job runs in this process. A context manager."""

    def __init__(self, jobs: int) -> None:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        context = get_context("spawn")
        self._executor = ProcessPoolExecutor(jobs, context, _limit_threads, (threads,)) if jobs > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=kind is None, cancel_futures=True)

    def each(self, task: Callable[[Given], Made], given: Iterable[Given]) -> Iterator[Made]:
        """Yield ``task`` of each of ``given`` as it is finished, in any order."""
        if self._executor is None:
            yield from map(task, given)
            return
        for future in as_completed([self._executor.submit(task, one) for one in given]):
            yield future.result()


def _limit_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
