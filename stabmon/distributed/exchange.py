"""One exchange a sample, in the writer thread of each process: every rank gives its buffer and gets those of all.

The training thread takes no part in it, so a rank that is late, drops a sample, fails or ends can delay what is
written and never a step. The group is gloo's, on host memory, and our own: it is in no list of torch.distributed, so no
order of collectives between it and the training's groups can be wrong.
"""

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import numpy as np
import torch

from stabmon.distributed.meeting import Meeting
from stabmon.distributed.merge import Merge
from stabmon.distributed.own import Own
from stabmon.failures import Failures
from stabmon.series import Floats

LAST = 10.0
"""Seconds that a process which closes its monitor waits for the others."""
LAST_FAILED = 1.0
"""The same where an exception ends the training: the others may hang, and the program is to end."""
LATE = 60.0
"""Seconds after which a wait for the others is said."""
LONGEST = timedelta(days=7)
"""Gloo's own limit for an exchange: a training may pause for long, and waits here have limits of their own."""

_HEADER = 3
"""Numbers before the buffer: the step's low and high bits, and the failures of the rank; -1 from one that leaves."""


class Exchange:
    """The exchange of the samples of one run.

    plan and map are of all processes together. Every rank gets the same merged buffers.
    """

    def __init__(self, meeting: Meeting, owns: Sequence[Own], failures: Failures) -> None:
        self._meeting, self._merge, self._failures = meeting, Merge(owns), failures
        self.plan, self.map = self._merge.plan, self._merge.map
        self.step = owns[0].step
        """The step that rank 0 had open when the ranks met."""
        self._group: Any = None
        self._given = torch.zeros(_HEADER + self._merge.width, dtype=torch.int32)
        self._all = torch.zeros(meeting.size, len(self._given), dtype=torch.int32)
        self._lost = False
        self.deadline = float("inf")
        """Time (monotonic) from which on the others are not waited for any more; set when the monitor is closed."""

    @property
    def payload(self) -> int:
        """Bytes that each rank sends to the others for a sample."""
        return self._given.nbytes * (self._meeting.size - 1)

    def reduce(self, step: int, buffer: Floats, idle: Callable[[], None]) -> Floats | None:
        """Return the merged buffer of ``step``, or None where a rank's numbers are missing; the reason is reported.

        idle: called again and again while the other ranks are waited for.
        """
        if self._lost:
            return None
        try:
            return self._reduce(step, buffer, idle)
        except Exception as error:  # a rank has died, or a buffer cannot be merged
            self._lose(f"{error}".splitlines()[0] if str(error) else repr(error), step)
            return None

    def end(self) -> None:
        """Let the others know that no more comes from here; wait for them a little, as they may still read."""
        if self._group is None or self._lost:
            return
        self._given.fill_(-1)
        self.deadline = min(self.deadline, time.monotonic() + LAST)
        try:
            self._gather(lambda: None)
        except Exception:  # they have gone already, or go on without this rank and say so
            self._lost = True

    def _reduce(self, step: int, buffer: Floats, idle: Callable[[], None]) -> Floats | None:
        """Exchange until all ranks are at one step: those that are behind lose a sample each time, the others wait."""
        began = time.perf_counter()
        while True:
            self._fill(step, buffer)
            self._gather(idle)
            steps = [int(low) | int(high) << 31 for low, high in self._all[:, :2].tolist()]
            gone = [rank for rank, low in enumerate(self._all[:, 0].tolist()) if low < 0]
            if gone:
                raise RuntimeError(f"rank {gone[0]} has closed its monitor, or ended")
            if min(steps) == max(steps):
                break
            self._report_steps(steps)
            if step < max(steps):
                return None
        self._report_failures()
        whole = self._merge(list(self._all[:, _HEADER:].numpy().view(np.float32)))
        if self._merge.fault is not None:
            self._failures.report("several processes", self._merge.fault, "each such step is counted", step=step)
        whole[self.plan.of_run("reduction_seconds")] = time.perf_counter() - began
        whole[self.plan.of_run("reduction_bytes")] = self.payload
        return whole

    def _fill(self, step: int, buffer: Floats) -> None:
        header = step & (1 << 31) - 1, step >> 31, len(self._failures.texts)
        self._given[:_HEADER] = torch.tensor(header, dtype=torch.int32)
        self._given[_HEADER : _HEADER + len(buffer)] = torch.from_numpy(buffer.view(np.int32))

    def _gather(self, idle: Callable[[], None]) -> None:
        if self._group is None:
            connecting = _started(self._connected)
            self._wait(connecting.done, idle)
            self._group = connecting.result()
        work = self._group.allgather([list(self._all)], [self._given])
        self._wait(work.is_completed, idle)
        work.wait()

    def _wait(self, done: Callable[[], bool], idle: Callable[[], None]) -> None:
        began, pause = time.monotonic(), 1e-4
        while not done():
            now = time.monotonic()
            if now > self.deadline:
                raise RuntimeError("this monitor was closed and others were not: close it on every rank")
            if now > began + LATE:
                what = f"the numbers of the others have not come for {LATE:.0f} s"
                self._failures.report("several processes wait", what, "samples are kept until they come")
            idle()
            time.sleep(pause)
            pause = min(pause * 1.5, 5e-3)

    def _connected(self) -> Any:
        """Return the group once all ranks have connected.

        It is never destroyed: another rank may still read its last exchange, and the destructor waits for exchanges
        that go on, so that a process that has given one up could not end before the rank that it waited for.
        """
        from torch.distributed.distributed_c10d import PrefixStore, ProcessGroupGloo

        meeting = self._meeting
        group = ProcessGroupGloo(PrefixStore("gloo", meeting.store), meeting.rank, meeting.size, LONGEST)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
        return group

    def _report_steps(self, steps: list[int]) -> None:
        low, high = steps.index(min(steps)), steps.index(max(steps))
        what = f"rank {low} gave step {steps[low]} while rank {high} gave step {steps[high]}"
        self._failures.report("steps of the processes", what, "only steps that all ranks recorded are")

    def _report_failures(self) -> None:
        numbers = self._all[:, 2].tolist()
        for rank, number in enumerate(numbers):
            if number > numbers[self._meeting.rank]:
                what = "reports more failures than this one, so numbers may be missing"
                self._failures.report(f"rank {rank}", what, "its own log and monitor.failures name it")

    def _lose(self, why: str, step: int) -> None:
        self._lost = True
        what = f"the ranks' numbers could not be put together at step {step}: {why}"
        self._failures.report("several processes", what, "from this step on nothing is recorded")


def _started(make: Callable[[], Any]) -> "Future[Any]":
    """Return what ``make`` will return; it runs in a thread that keeps no process from ending."""
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="stabmon connecting", daemon=True).start()
    return future
