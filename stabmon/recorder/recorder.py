"""From the training thread to the sinks: one queue, one writer thread, and nothing that can stop a training.

The training thread copies a buffer into a slot and goes on. The writer thread makes the row of numbers, hands it to
every sink, asks the rules, and hands their findings to every sink. A failure of any of them is reported once.

After a fork (a DataLoader's worker) the recorder belongs to the parent alone: in the child, every call does nothing.
"""

import atexit
import logging
import os
import queue
import sys
import threading
import time as clock
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeVarTuple, Unpack

import numpy as np
import torch

from stabmon.errors import StabmonError
from stabmon.findings import Finding
from stabmon.recorder.ring import Ring
from stabmon.records import Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout
from stabmon.sinks.protocol import Beating, Sink

BEAT = 2.0
"""Seconds between heartbeats."""

_Arguments = TypeVarTuple("_Arguments")
_log = logging.getLogger("stabmon")


class Rules(Protocol):
    """What the recorder needs of ``stabmon.rules.Engine``."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings so far."""

    def observe(self, step: int, values: Floats) -> Sequence[Finding]:
        """Look at the row of ``step``; return the findings that opened, grew or cleared."""


class _Sample(NamedTuple):
    step: int
    time: float
    slot: int


class Recorder:
    """Takes buffers from the training thread and brings rows and findings to the sinks.

    width: numbers in a submitted buffer.
    finalise: makes the row of ``layout`` of a buffer [width]; called in the writer thread.
    engine: the rules, or None to record without them.
    capacity: samples that may wait; more are dropped and counted.
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
    ) -> None:
        self.dropped = 0
        """Samples lost because the queue was full or a row could not be made."""
        self.samples = 0
        """Rows that were made and handed to the sinks."""
        self.overhead: float | None = None
        """Set by the monitor: seconds that stabmon took on the training thread over seconds of training."""
        self._finalise, self._engine, self._beat = finalise, engine, beat
        self._width = layout.width
        self._findings: tuple[Finding, ...] = ()
        self._step = -1
        self._ring = Ring(capacity, width)
        self._queue: queue.SimpleQueue[_Sample | threading.Event | RunState] = queue.SimpleQueue()
        self._reported: set[str] = set()
        self._process = os.getpid()
        self._closed = False
        self._sinks = self._started(sinks, info, layout)
        self._thread = threading.Thread(target=self._work, name="stabmon recorder", daemon=True)
        self._thread.start()
        atexit.register(self._at_exit)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings as they stood when one last changed; ``flush`` first for how they stand now."""
        return self._findings

    def submit(self, step: int, buffer: torch.Tensor) -> None:
        """Take the numbers of ``step`` from ``buffer`` [width], which is free again at once; never wait or raise."""
        if self._closed or os.getpid() != self._process:
            return
        try:
            slot = self._ring.put(buffer)
        except Exception as error:  # a failure of stabmon must not stop the training
            self._lose("copying a step's numbers", step, error)
            return
        if slot is None:
            self.dropped += 1
            advice = f"{self._ring.capacity} samples wait to be written: sample fewer steps, or write to a faster disk"
            self._report("the queue is full", f"step {step} and perhaps later ones are not recorded", advice)
            return
        self._queue.put(_Sample(step, clock.time(), slot))

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was submitted has reached the sinks; return whether that took less than ``timeout`` s."""
        if self._closed or os.getpid() != self._process:
            return True
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(timeout)

    def close(self, state: RunState = RunState.FINISHED, timeout: float = 60.0) -> None:
        """Bring everything to the sinks and close them with ``state``; a second call does nothing."""
        if self._closed or os.getpid() != self._process:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        self._queue.put(state)
        self._thread.join(timeout)
        if self._thread.is_alive():
            waiting = self._queue.qsize()
            self._report("closing", f"{waiting} samples were not written within {timeout:.0f} s", "they may be lost")

    def _at_exit(self) -> None:
        """Close a run that its user forgot to close: as failed when an exception ends the program."""
        self.close(RunState.FAILED if hasattr(sys, "last_value") else RunState.FINISHED)

    def _started(self, sinks: Sequence[Sink], info: RunInfo, layout: Layout) -> list[Sink]:
        """Start each sink; one whose use was wrong stops here, one that merely fails is left out."""
        started: list[Sink] = []
        for sink in sinks:
            try:
                sink.start(info, layout)
            except StabmonError:
                for other in started:
                    self._try(other, other.close, RunState.FAILED)
                raise
            except Exception as error:  # a sink that cannot start must not stop the training
                self._report(sink.name, str(error) or repr(error), "the run goes on without it")
                continue
            started.append(sink)
        return started

    def _work(self) -> None:
        """Serve the queue until the run is closed; runs in the writer thread."""
        next_beat = clock.monotonic()
        while True:
            if clock.monotonic() >= next_beat:
                self._send_beat()
                next_beat = clock.monotonic() + self._beat
            try:
                item = self._queue.get(timeout=max(next_beat - clock.monotonic(), 0.0))
            except queue.Empty:
                continue
            if isinstance(item, _Sample):
                self._record(item)
            elif isinstance(item, threading.Event):
                self._take_findings()
                item.set()
            else:
                self._send_beat()
                self._tell_how_findings_end()
                self._close_sinks(item)
                return

    def _take_findings(self) -> None:
        if self._engine is None:
            return
        try:
            self._findings = tuple(self._engine.findings)
        except Exception as error:  # a finding that cannot be made must not end the thread
            self._report("findings", repr(error), "they are those of before; please report the bug")

    def _tell_how_findings_end(self) -> None:
        """Hand every finding to the sinks as it stands at the end: while one goes on, its last step is not written."""
        self._take_findings()
        if self._findings:
            for sink in self._sinks:
                self._try(sink, sink.findings, list(self._findings))

    def _close_sinks(self, state: RunState) -> None:
        """Close every sink; what is lost at the end is said even where the sink's failure was reported before."""
        for sink in self._sinks:
            try:
                sink.close(state)
            except Exception as error:  # a sink that cannot be closed must not keep the others open
                self._report(f"{sink.name}, closing the run", str(error) or repr(error), "what came before is kept")

    def _record(self, sample: _Sample) -> None:
        try:
            values = np.ascontiguousarray(self._finalise(self._ring.take(sample.slot)), dtype=np.float32)
            if values.shape != (self._width,):
                raise ValueError(f"a row must have shape [{self._width}], got {list(values.shape)}")
        except Exception as error:  # a row that cannot be made must not end the thread
            self._lose("making a row of a step's numbers", sample.step, error)
            return
        self.samples += 1
        self._step = sample.step
        for sink in self._sinks:
            self._try(sink, sink.sample, sample.step, sample.time, values)
        if changed := self._observe(sample.step, values):
            for sink in self._sinks:
                self._try(sink, sink.findings, changed)

    def _observe(self, step: int, values: Floats) -> Sequence[Finding]:
        if self._engine is None:
            return ()
        try:
            changed = self._engine.observe(step, values)
        except Exception as error:  # a bug in a rule must not end the recording
            advice = "recording goes on; look at it again with `stabmon findings RUN --replay`, and report the bug"
            self._report("a rule", f"failed at step {step}: {error!r}", advice)
            return ()
        if changed:
            self._take_findings()
        return changed

    def _send_beat(self) -> None:
        beat = Heartbeat(
            state=RunState.RUNNING,
            step=self._step,
            time=clock.time(),
            samples=self.samples,
            dropped=self.dropped,
            overhead=self.overhead,
        )
        for sink in self._sinks:
            if isinstance(sink, Beating):
                self._try(sink, sink.heartbeat, beat)

    def _try(self, sink: Sink, call: Callable[[Unpack[_Arguments]], None], *arguments: *_Arguments) -> None:
        try:
            call(*arguments)
        except Exception as error:  # a sink that fails must not stop the others
            self._report(sink.name, str(error) or repr(error), sink.advice)

    def _lose(self, doing: str, step: int, error: Exception) -> None:
        self.dropped += 1
        self._report(doing, f"failed at step {step}: {error!r}", "such steps are not recorded; please report the bug")

    def _report(self, who: str, what: str, advice: str) -> None:
        """Warn once about ``who``."""
        if who not in self._reported:
            self._reported.add(who)
            _log.warning("stabmon: %s: %s; %s. The training goes on; this is said once.", who, what, advice)
