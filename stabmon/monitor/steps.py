"""The steps of a watched training, each from the pass that begins it to the row that the recorder takes."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from stabmon.distributed import Exchange
from stabmon.generators import same_generators
from stabmon.hooks import Recording
from stabmon.hooks.recording import Guarded
from stabmon.monitor import program_end
from stabmon.monitor.arrivals import RowMaker
from stabmon.monitor.attachment import Attachment
from stabmon.monitor.between import Between
from stabmon.monitor.logged import write
from stabmon.monitor.new_run import Reservation
from stabmon.monitor.optimizers import learning_rate
from stabmon.schedule import Schedule

if TYPE_CHECKING:
    from stabmon.recorder import Recorder


class Steps:
    """Counts steps and hands each recorded one on; the run begins when the first one ends.

    taken: optimizer steps so far, those before ``first`` included.
    recorder: None before the run begins.
    """

    def __init__(
        self,
        attached: Attachment,
        recording: Recording,
        schedule: Schedule,
        optimizers: tuple[Optimizer, ...],
        run: Reservation,
        first: int,
    ) -> None:
        self.taken = self.first = first
        self.recorder: Recorder | None = None
        self._attached: Attachment | None = attached
        self._recording, self._schedule = recording, schedule
        self._optimizers, self._run = optimizers, run
        self._own, self._logging = Guarded("the end of a step"), Guarded("logged numbers")
        self._unseen = self._blind = False
        """A step of an optimizer without a pass before it; and that passes cannot be seen in this training."""
        self._sealed: Tensor | None = None
        """The step just completed, which ``log`` may still add to."""
        self._sealed_step: int | None = None
        self._between = Between()
        self._rows: RowMaker | None = None
        self._together: Exchange | None = None
        self._since: tuple[float, float] | None = None
        """Clock and stabmon's own seconds at the end of the first step."""
        self._open()

    @property
    def recorded_none(self) -> bool:
        """No step that has ended was to be recorded."""
        return self._sealed is None

    @property
    def seconds(self) -> float:
        """Seconds in stabmon's code so far, as ``Monitor.seconds``."""
        return self._recording.seconds + (0.0 if self.recorder is None else self.recorder.seconds)

    @property
    def overhead(self) -> float | None:
        """The share of stabmon's code in the training, as ``Monitor.overhead``."""
        if self._since is None or self._recording.traced:
            return None
        return (self.seconds - self._since[1]) / (time.perf_counter() - self._since[0])

    def start(self, *, strict: bool = False, meet: bool = True) -> None:
        """Start the run: what is recorded is known from now on. With ``meet``, together with the other processes."""
        assert self._attached is not None
        attached, failures = self._attached, self._recording.failures
        attached.end_search()
        with same_generators():
            self._together = attached.meet(self.taken) if meet else None
            if self._together is not None:
                self._count_as(self._together.step)
            plan = self._recording.plan if self._together is None else self._together.plan
            self._rows = RowMaker(plan, failures)
            self.recorder = self._run.start(
                attached.model,
                attached.map,
                plan,
                self._rows,
                failures,
                strict=strict,
                together=self._together,
                width=self._recording.plan.width,
            )
        program_end.come_first()

    def _count_as(self, step: int) -> None:
        """Count as rank 0 does, which alone knows where a run goes on: on another host it is not stored."""
        if step == self.taken:
            return
        what = f"rank 0 is at step {step}, this one counted {self.taken}"
        self._recording.failures.report("steps of the processes", what, "they are counted as on rank 0")
        self.first += step - self.taken
        self.taken = step
        if not self._recording.begun:
            self._open()

    def start_late(self) -> None:
        """Start the run of a training that ended no step, so that it says why."""
        self._recording.guard(self._own, partial(self.start, meet=False))

    def stepped(self, optimizer: Optimizer) -> None:
        """End a step, unless no pass has run since ``optimizer`` or another one ended it.

        Within a graph of torch.compile the step's end can only be noted.
        """
        if torch.compiler.is_compiling():
            self._recording.ended = True
        elif self._recording.begun or self._blind:
            self.end(optimizer)
        else:
            self._unseen = True

    def finish(self) -> None:
        """End the step that an optimizer within a graph has ended."""
        if self._recording.ended:
            self._recording.ended = False
            self.end()
        if self._recording.missed:
            self._recording.missed = False
            self._recording.failures.add(
                "the pass after an optimizer's step within a graph of torch.compile",
                "it runs within a graph too and is not recorded. Call monitor.log(loss=...) after each step, which "
                "ends the step in time",
            )

    def end(self, optimizer: Optimizer | None = None) -> None:
        """End the open step, which ``optimizer`` ended."""
        self._guarded(self._end, optimizer)

    def submit(self) -> None:
        """Hand the step just completed to the recorder: nothing is added to it any more."""
        self._guarded(self._submit)

    def hand_over(self) -> None:
        """Hand all to the recorder that it has not: the step just completed, and what was logged since."""
        self.submit()
        self._guarded(self._submit_logged)

    def log(self, values: Mapping[str, float | Tensor]) -> None:
        """Record numbers for the open step, or for the one just completed when none has begun."""
        self._recording.guard(self._logging, self._log, values)

    def wait_no_more(self, seconds: float) -> None:
        """Let the other processes be waited for ``seconds`` from now on, and no longer."""
        if self._together is not None:
            self._together.deadline = time.monotonic() + seconds

    def let_go(self) -> None:
        """Keep neither model nor optimizers alive: no step ends any more."""
        self._attached, self._optimizers = None, ()

    def _guarded(self, action: Callable[..., None], *given: Any) -> None:
        """Run ``action``; where it fails, no step ends any more, so nothing of later ones is measured either."""
        self._recording.guard(self._own, action, *given)
        if not self._own.enabled:
            self._recording.active = False
        if self._since is None and self.recorder is not None:  # starting the run is not counted
            self._since = (time.perf_counter(), self.seconds)

    def _open(self) -> None:
        recording = self._recording
        recording.failures.step = self.taken
        recording.begun = False
        recording.active = self._schedule.sampled(self.taken)
        recording.offset = self._schedule.offset(self.taken)

    def _end(self, optimizer: Optimizer | None) -> None:
        if self.recorder is None:
            self.start()
        self._submit()
        if self._recording.active:
            self._seal()
            self._drop_overflow(optimizer)
            self._add_rate(optimizer or next(iter(self._optimizers), None))
        self.taken += 1
        if self.recorder is not None:
            self.recorder.moved()
        self._open()
        if self._recording.traced and self._recording.active and self._attached is not None:
            self._attached.refresh()

    def _seal(self) -> None:
        """Set the open step aside for ``log``, and make the buffer ready for the next."""
        recording = self._recording
        recording.flush()
        if self._sealed is None:
            self._sealed = recording.buffer.clone()
            assert self._attached is not None
            assert self._rows is not None
            self._rows.first = self.taken, self._attached.seen
        else:
            self._sealed.copy_(recording.buffer)
        recording.buffer.copy_(recording.initial)
        self._sealed_step = self.taken

    def _drop_overflow(self, optimizer: Optimizer | None) -> None:
        """Drop the sealed step's gradient norms where a fused ``optimizer`` finds, on the device, that they overflowed.

        The GradScaler takes such gradients for its own and lowers its scale: no update was made.
        """
        found = getattr(optimizer, "found_inf", None)
        if self._sealed is None or not isinstance(found, Tensor):
            return
        for at in self._recording.gradient_norms:
            kept, none = self._sealed[at], self._recording.initial[at]
            self._sealed[at] = torch.where(found.to(kept.device) > 0, none, kept)

    def _add_rate(self, optimizer: Optimizer | None) -> None:
        """Add the learning rate to the sealed step."""
        if optimizer is None or self._sealed is None:
            return
        rate = learning_rate(optimizer)
        if rate is None:
            what = f"that of {type(optimizer).__name__}'s first parameter group is no number"
            self._recording.failures.report("learning rate", what, "it is not recorded")
        else:
            write(self._sealed, self._recording.plan.of_run("learning_rate"), rate)

    def _submit(self) -> None:
        if self._sealed_step is not None and self._sealed is not None and self.recorder is not None:
            self._submit_logged()
            self.recorder.overhead = self.overhead
            self.recorder.submit(self._sealed_step, self._sealed)
            self._sealed_step = None

    def _log(self, values: Mapping[str, float | Tensor]) -> None:
        if self._unseen and self.recorder is None and not self._recording.begun:
            self._blind = True
            self._end(self._optimizers[0])
        if self._recording.begun or self.recorder is None:
            buffer, step = self._recording.buffer if self._recording.active else None, self.taken
        else:
            buffer, step = self._sealed if self._sealed_step is not None else None, self.taken - 1
        for name, value in values.items():
            if buffer is not None:
                write(buffer, self._recording.plan.logged[name], value)
            elif self._own.enabled:
                self._log_between(step, name, value)

    def _log_between(self, step: int, name: str, value: float | Tensor) -> None:
        if self._sealed_step is not None:  # it comes before what is logged of a later step
            self._submit()
        if self._between.full:
            self._submit_logged()
        self._between.add(step, name, value)

    def _submit_logged(self) -> None:
        if self.recorder is not None:
            kept = self._between.take()
            if kept.values:
                self.recorder.submit_logged(*kept)
