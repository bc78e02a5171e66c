"""From the training thread to the sinks: queues, threads, and nothing that can stop a training.

The training thread copies a buffer into a slot and goes on. The writer thread makes the row of numbers and hands it to
every sink and to the rules, each of which has a thread of its own (``Lane``), so that one that hangs holds up no other.
The rules hand their findings to every sink. A failure of any of them is reported once and kept in ``failures``.

After a fork (a DataLoader's worker) the recorder belongs to the parent alone: in the child, every call does nothing.
"""

import os
import queue
import threading
import time as clock
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from stabmon.failures import Failures
from stabmon.findings import Finding
from stabmon.recorder import program_end
from stabmon.recorder.lane import CAPACITY, Lane
from stabmon.recorder.logged_ring import LoggedRing, OnTheWay
from stabmon.recorder.pulse import Pulse
from stabmon.recorder.ring import Ring
from stabmon.recorder.rules_lane import Rules, RulesLane
from stabmon.recorder.sink_lane import start_sinks
from stabmon.records import Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout, Logged
from stabmon.sinks.protocol import Sink

BEAT = 2.0
"""Seconds between heartbeats."""
HANGING = 30.0
"""Seconds that one call of a sink or a rule may take before it is reported."""
SHARE = 10.0
"""Seconds that one call of a sink or a rule may take while the run is closed, unless the sink says otherwise."""

_LAST = 2.0
"""Seconds that the rules have once more after one that hangs was ended."""


class _Sample(NamedTuple):
    step: int
    time: float
    slot: int


class Together(Protocol):
    """The interface of ``stabmon.distributed.Exchange`` that the recorder uses, in the writer thread."""

    def reduce(self, step: int, buffer: Floats, idle: Callable[[], None]) -> Floats | None:
        """Return the buffer of all processes, or None where one's is missing; call ``idle`` while it waits."""

    def end(self) -> None:
        """Say that no more comes."""


class Recorder:
    """Takes buffers from the training thread and brings rows and findings to the sinks.

    width: numbers in a submitted buffer.
    finalise: makes the row of ``layout`` of a buffer [width]; called in the writer thread.
    engine: the rules, or None to record without them.
    capacity: samples that may wait for ``finalise``; more are dropped and counted.
    strict: a ``StabmonError`` of a sink's start is raised; otherwise it is a failure as any other.
    together: makes one buffer of those of several processes.
    """

    def __init__(
        self,
        width: int,
        finalise: Callable[[Floats], Floats],
        info: RunInfo,
        layout: Layout,
        sinks: Sequence[Sink],
        engine: Rules | None = None,
        *,
        capacity: int = 256,
        beat: float = BEAT,
        share: float = SHARE,
        hanging: float = HANGING,
        failures: Failures | None = None,
        strict: bool = True,
        together: Together | None = None,
    ) -> None:
        self.dropped = 0
        """Samples that reached no sink: the queue was full, or a row could not be made."""
        self.samples = 0
        """Rows that were made and handed to the sinks."""
        self.overhead: float | None = None
        """Set by the monitor: seconds that stabmon took over seconds of training."""
        self.failures = Failures() if failures is None else failures
        self._finalise, self._together = finalise, together
        self._beat, self._share, self._hanging = beat, share, hanging
        self._next_beat = clock.monotonic()
        self._width = layout.width
        self._seconds = 0.0
        self._pulse = Pulse()
        self._submitted = 0
        self._ring = Ring(capacity, width)
        self._logged = LoggedRing(capacity)
        self._queue: queue.SimpleQueue[_Sample | OnTheWay | threading.Event | RunState | None] = queue.SimpleQueue()
        self._process = os.getpid()
        self._closed = False
        self._rules = RulesLane(engine, self.failures, self._hand_over)
        self._sinks = start_sinks(sinks, info, layout, self.failures, strict=strict)
        self._thread = threading.Thread(target=self._work, name="stabmon recorder", daemon=True)
        for lane in (self._rules, *self._sinks):
            lane.start()
        self._rules.take_findings()
        for sink in self._sinks if self.findings else ():
            sink.resumed(list(self.findings))
        self._thread.start()
        program_end.closes(self)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings at the time of the last change; ``flush`` first for the current ones."""
        return self._rules.findings

    @property
    def seconds(self) -> float:
        """Processor time of all threads of the recorder so far, up to their latest calls."""
        return self._seconds + sum(lane.seconds for lane in (self._rules, *self._sinks))

    def moved(self) -> None:
        """Note that the training has ended a step, sampled or not."""
        self._pulse.moved()

    def submit(self, step: int, buffer: torch.Tensor) -> None:
        """Take the numbers of ``step`` from ``buffer`` [width], which is free again at once; never wait or raise."""
        if self._closed or os.getpid() != self._process:
            return
        self.moved()
        self._submitted += 1
        try:
            slot = self._ring.put(buffer)
        except Exception as error:  # a failure of stabmon must not stop the training
            self._lose("copying a step's numbers", step, error)
            return
        if slot is None:
            self.dropped += 1
            advice = f"{self._ring.capacity} samples wait to be written: sample fewer steps"
            what = f"step {step} and perhaps later ones are not recorded"
            self.failures.report("the queue is full", what, advice, step=step)
            return
        self._queue.put(_Sample(step, clock.time(), slot))

    def submit_logged(
        self, values: Sequence[Logged], on_device: Sequence[bool], buffer: torch.Tensor | None = None
    ) -> None:
        """Take numbers logged between samples, in the order of their steps; never wait or raise.

        Where ``on_device`` says so, the value is at the same index of ``buffer``, which is free again at once.
        """
        if self._closed or os.getpid() != self._process:
            return
        try:
            item = self._logged.put(values, on_device, buffer)
        except Exception as error:  # a failure of stabmon must not stop the training
            self._lose_logged(values, repr(error))
            return
        if item is None:
            self._lose_logged(values, "the queue is full")
        else:
            self._queue.put(item)

    def flush(self, timeout: float = 10.0, *, sinks: bool = True) -> bool:
        """Wait until all that was submitted has reached the rules and, with ``sinks``, the sinks.

        Return whether that took less than ``timeout`` s.
        """
        if self._closed or os.getpid() != self._process:
            return True
        deadline = clock.monotonic() + timeout
        reached = threading.Event()
        self._queue.put(reached)
        done = reached.wait(timeout) and self._rules.drained(deadline - clock.monotonic())
        for lane in self._sinks if sinks else ():
            done = lane.drained(deadline - clock.monotonic()) and done
        return done

    def close(self, state: RunState = RunState.FINISHED, timeout: float = 60.0) -> None:
        """Bring everything to the sinks and close them with ``state``; a second call does nothing.

        Each sink has its own time for it, all at once, so that one that hangs costs no other its samples. A ``timeout``
        of 0 waits for nothing; what is left is then done in the background, or when the program ends.
        """
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        self._queue.put(state)
        if timeout:
            self.join(timeout)

    def discard(self) -> None:
        """End a run that has not begun: sinks that can undo their start leave nothing of it, others close as failed."""
        self._closed = True
        self._queue.put(None)
        self.join(2 * self._share)

    def join(self, timeout: float = 60.0) -> None:
        """Wait until a closed recorder has ended."""
        if os.getpid() != self._process:
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            left = self._submitted - self.dropped - self.samples
            if left:
                what = f"{left} samples were not made within {timeout:.0f} s"
                advice = "they are lost: the device or stabmon's writer thread hangs"
            else:
                what = f"all samples were made, and the sinks have not ended within {timeout:.0f} s"
                advice = "what waits for them is lost where the program ends before they do"
            self.failures.report("closing", what, advice)

    def _work(self) -> None:
        """Serve the queue until the run is closed; runs in the writer thread."""
        while True:
            self._beat_if_due()
            try:
                item = self._queue.get(timeout=max(self._next_beat - clock.monotonic(), 0.0))
            except queue.Empty:
                continue
            if isinstance(item, _Sample):
                self._record(item)
                self._seconds = clock.thread_time()
            elif isinstance(item, OnTheWay):
                self._hand_over_logged(item)
            elif isinstance(item, threading.Event):
                item.set()
            else:
                self._finish(item)
                return

    def _beat_if_due(self) -> None:
        if clock.monotonic() >= self._next_beat:
            self._send_beat()
            self._next_beat = clock.monotonic() + self._beat

    def _record(self, sample: _Sample) -> None:
        try:
            buffer = self._ring.take(sample.slot)
            if self._together is not None:
                whole = self._together.reduce(sample.step, buffer, self._beat_if_due)
                if whole is None:  # with the reason in failures
                    self.dropped += 1
                    return
                buffer = whole
            values = np.ascontiguousarray(self._finalise(buffer), dtype=np.float32)
            if values.shape != (self._width,):
                raise ValueError(f"a row must have shape [{self._width}], got {list(values.shape)}")
        except BaseException as error:  # a row that cannot be made must not end the thread
            self._lose("making a row of a step's numbers", sample.step, error)
            return
        values.flags.writeable = False  # the sinks and the rules share it
        self.samples += 1
        self._pulse.step = sample.step
        for lane in self._sinks:
            lane.sample(lane.sink.sample, sample.step, sample.time, values)
        self._rules.evaluate(sample.step, values)

    def _hand_over_logged(self, item: OnTheWay) -> None:
        try:
            values = self._logged.take(item)
        except BaseException as error:  # must not end the thread
            self._lose_logged(item.values, repr(error))
            return
        for lane in self._sinks:
            lane.logged(values)
        self._rules.logged(values)

    def _hand_over(self, changed: Sequence[Finding]) -> None:
        for lane in self._sinks:
            lane.put(lane.sink.findings, changed)

    def _send_beat(self) -> None:
        for lane in (self._rules, *self._sinks):
            if lane.busy > self._hanging:
                self._report_hanging(lane, "the rest is recorded")
                if lane is self._rules:
                    lane.interrupt()
            if lane.lost:
                what = f"{CAPACITY} samples wait for it, later ones are lost to it"
                self.failures.report(f"{lane.name} is too slow or hangs", what, "sample fewer steps")
        beat = self._heartbeat()
        for lane in self._sinks:
            lane.explain()
            lane.beat(beat)

    def _heartbeat(self) -> Heartbeat:
        return self._pulse.beat(self.samples, self.dropped, self.overhead)

    def _finish(self, state: RunState | None) -> None:
        """End the rules, hand over every finding in its latest form, and end the sinks, all at the same time.

        state: None for a run that is discarded.
        """
        if self._together is not None:
            self._together.end()
        self._rules.end((self._rules.take_findings, ()))
        if not self._rules.ended(self._share):
            self._report_hanging(self._rules, "it is ended; `stabmon findings RUN --replay` evaluates the others again")
            self._rules.interrupt()
            self._rules.ended(_LAST)
        if self.dropped:
            self.failures.add("samples lost", f"{self.dropped:,} of {self._submitted:,} reached no sink")
        found, beat = list(self.findings), self._heartbeat()
        for lane in self._sinks:
            if state is None:
                lane.end((lane.discard, ()))
            else:
                lane.finish(found, beat, state)
        for lane in self._sinks:
            if not lane.ended(getattr(lane.sink, "closing", self._share)):
                self._report_hanging(lane, f"the run is closed without the {lane.waiting} samples that wait for it")

    def _report_hanging(self, lane: Lane, advice: str) -> None:
        name = lane.subject if isinstance(lane, RulesLane) else lane.name
        self.failures.report(f"{name} hangs", f"one call has taken {lane.busy:.0f} s and goes on", advice)

    def _lose_logged(self, values: Sequence[Logged], why: str) -> None:
        what = f"those of the steps {values[0].step} to {values[-1].step} and perhaps later ones are lost: {why}"
        self.failures.report("numbers logged between samples", what, "sample more steps, or log fewer")

    def _lose(self, doing: str, step: int, error: BaseException) -> None:
        self.dropped += 1
        advice = "such steps are not recorded; please report the bug"
        self.failures.report(doing, f"failed at step {step}: {error!r}", advice, step=step)
