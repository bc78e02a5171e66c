"""A ``Monitor`` records each sampled step of a training and takes itself off at the end."""

import atexit
import contextlib
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from stabmon.batch import Batch, arguments
from stabmon.errors import WatchError
from stabmon.findings import Finding
from stabmon.generators import same_generators
from stabmon.hooks import Recording
from stabmon.hooks.recording import Guarded
from stabmon.hooks.uncompiled import uncompiled
from stabmon.monitor.arrivals import RowMaker, why_no_sample
from stabmon.monitor.attachment import Attachment, weakly
from stabmon.monitor.new_run import Reservation
from stabmon.monitor.optimizers import learning_rate
from stabmon.monitor.watched import release
from stabmon.records import ModelMap, RunState
from stabmon.schedule import Schedule

if TYPE_CHECKING:
    from rich.console import Group

    from stabmon.recorder import Recorder


class Monitor:
    """A watched training: a context manager that takes its hooks off at the end, also after an exception.

    It looks for attention right before the first training pass, and its run begins when the first step ends.

    path: the run's folder, or None where no files are written.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: tuple[Optimizer, ...],
        run: Reservation,
        recording: Recording,
        schedule: Schedule,
        *,
        scaler: GradScaler | None = None,
        first_step: int = 0,
    ) -> None:
        self.path = run.path
        self._attached: Attachment | None = Attachment(
            model, recording, self._backward_began, scaler=scaler, optimizer=bool(optimizers)
        )
        self._map = self._attached.map
        self._optimizers = optimizers
        self._unseen = self._blind = False
        """A step of an optimizer without a pass before it; and that passes cannot be seen in this training."""
        self._run, self._recording, self._schedule = run, recording, schedule
        self._failures = recording.failures
        self._recorder: Recorder | None = None
        self._steps = self._first_step = first_step
        self._own, self._logging = Guarded("the end of a step"), Guarded("logged numbers")
        self._closed = False
        self._counting: list[Any] = []
        """Handles of the hooks that count steps."""
        self._sealed: Tensor | None = None
        """The step just completed, which ``log`` may still add to."""
        self._sealed_step: int | None = None
        self._rows: RowMaker | None = None
        self._since: tuple[float, float] | None = None
        """Clock and stabmon's own seconds at the end of the first step."""
        self._overhead: float | None = None
        _note(self)
        recording.finish_step = weakly(self._finish_step)  # hooks keep the recording
        recording.active = schedule.sampled(first_step)
        recording.offset = schedule.offset(first_step)

    def attach(self, batch: Batch | None) -> None:
        """Put the hooks on, all or none; look for attention at once where there is a ``batch``. ``watch`` calls this.

        Raises:
            ModelError: no attention was found, or the model does not take ``batch``.
            StoreError: the run cannot be started.
        """
        assert self._attached is not None
        try:
            self._put_on()
            if batch is not None:
                self._attached.look(self._attached.model, *arguments(batch))
                self._start(strict=True)
        except BaseException:
            self._closed = True
            self._take_off()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def __rich__(self) -> "Group":
        from stabmon.monitor.summary import summary

        return summary(self)

    def _repr_html_(self) -> str:
        from stabmon.notebook import html

        return html(self.__rich__())

    @property
    def steps(self) -> int:
        """Optimizer steps so far, those before ``first_step`` included."""
        return self._steps + self._recording.ended

    @property
    def failures(self) -> tuple[str, ...]:
        """Failures to record, store or print, each once; empty in a good run, complete after ``close``."""
        return self._failures.texts

    @property
    def map(self) -> ModelMap:
        """The attentions that were found in the model; none before its first training pass."""
        return self._map if self._attached is None else self._attached.map

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings so far; waits for the writer thread, which is milliseconds behind."""
        if self._recorder is None:
            return ()
        self._recorder.flush(sinks=False)
        return self._recorder.findings

    @property
    def seconds(self) -> float:
        """Seconds in stabmon's code so far: on the training thread, and processor time of stabmon's own threads."""
        return self._recording.seconds + (0.0 if self._recorder is None else self._recorder.seconds)

    @property
    def overhead(self) -> float | None:
        """Seconds in stabmon's code over seconds of training, since the end of the first step.

        They are those of hooks on the training thread, and the processor time of stabmon's own threads, for which a
        training in Python waits, since one thread at a time holds the interpreter; where it waits for a GPU meanwhile,
        the figure is an upper bound of theirs. None before the second step, and where torch.compile took the hooks into
        a graph. Work that a GPU does for stabmon and torch's own calls of hooks (some microseconds each) are not in it:
        ``stabmon bench --overhead`` measures whole steps.
        """
        if self._closed or self._since is None or self._recording.traced:
            return self._overhead
        return (self.seconds - self._since[1]) / (time.perf_counter() - self._since[0])

    @uncompiled
    def log(self, **values: float | Tensor) -> None:
        """Record numbers, such as the loss, for the open step, or for the one just completed when none has begun.

        A tensor is copied on its device without waiting for it. The last value of a step counts.

        Raises:
            WatchError: a name was not announced in ``log``, a value is no single number, or the monitor is closed.
        """
        self._refuse_closed("log")
        if unknown := sorted(values.keys() - self._recording.plan.logged.keys()):
            known = ", ".join(self._recording.plan.logged) or "none"
            raise WatchError(
                f"cannot log {', '.join(unknown)}: announced were {known}; pass watch(..., log=(...)) with every name"
            )
        for name, value in values.items():
            _refuse_what_is_no_number(name, value)
        self._finish_step()
        self._recording.guard(self._logging, self._log, values)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the hooks off for a block: steps in it run as if nobody watched, and are not counted."""
        self._refuse_closed("paused")
        self._take_off()
        try:
            yield
        finally:
            if not self._closed:
                self._put_on()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all rows have reached sinks and rules; return whether that took less than ``timeout`` s."""
        return self._recorder is None or self._recorder.flush(timeout)

    def step(self) -> None:
        """Count an optimizer step, where no optimizer was given.

        Raises:
            WatchError: an optimizer was given, whose steps are counted by its own hook, or the monitor is closed.
        """
        self._refuse_closed("step")
        if self._optimizers:
            raise WatchError(
                "step() is for a monitor without an optimizer; this one counts its optimizer's steps itself"
            )
        self._guarded(self._advance)

    def skipped(self) -> None:
        """Count a step that a GradScaler refused because the loss itself was not finite: no optimizer hook saw it.

        Without this a forward pass that overflows in fp16 is never recorded, however often it repeats. Refusals while
        the scaler looks for its scale, with a finite loss, are no steps and need no call.

        Raises:
            WatchError: the monitor is closed.
        """
        self._refuse_closed("skipped")
        self._guarded(self._advance)

    def close(self, *, failed: bool = False) -> None:
        """Take the hooks off, write what is left and end the run; a second call does nothing."""
        self._end(RunState.FAILED if failed else RunState.FINISHED)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # one that was never made whole
            self._end(RunState.FINISHED, wait=False)

    def _end(self, state: RunState, *, wait: bool = True) -> None:
        if self._closed:
            return
        self._finish_step()
        self._guarded(self._submit)
        if self._recorder is None and wait and not self._run.resumes:
            self._recording.guard(self._own, self._start)
        if self._sealed is None and self._attached is not None:
            taken = self._steps - self._first_step
            why = why_no_sample(self._attached.seen, steps=taken, optimizer=bool(self._optimizers))
            self._failures.add(why)
        self._overhead = self.overhead
        self._closed = True
        self._recording.active = False
        self._take_off()
        if self._attached is not None:
            self._map = self._attached.map
            release(self._attached.model)
        self._attached, self._optimizers = None, ()
        if self._recorder is None:
            self._run.release()
            return
        self._recorder.overhead = self._overhead
        if wait:
            self._recorder.close(state)
        else:
            self._recorder.close(state, timeout=0)

    def _put_on(self) -> None:
        if self._attached is not None:
            self._attached.put_on()
        self._counting = [one.register_step_post_hook(self._stepped) for one in self._optimizers]

    def _take_off(self) -> None:
        if self._attached is not None:
            self._attached.take_off()
        for handle in self._counting:
            handle.remove()
        self._counting = []

    def _start(self, *, strict: bool = False) -> None:
        """Start the run: what is recorded is known from now on."""
        assert self._attached is not None
        self._attached.end_search()
        self._rows = RowMaker(self._recording.plan, self._failures)
        with same_generators():
            self._recorder = self._run.start(
                self._attached.model,
                self._attached.map,
                self._recording.plan,
                self._rows,
                self._failures,
                strict=strict,
            )
        _note(self)  # its end comes before that of the recorder, whose module was loaded just now

    def _backward_began(self) -> None:
        """Submit the last step's row: during a backward pass the interpreter is free for the writer thread."""
        self._finish_step()
        self._guarded(self._submit)

    @uncompiled
    def _stepped(self, optimizer: Optimizer, *_: object) -> None:
        """Run as the post-hook of each optimizer: it ends a step, unless no pass has run since another one ended it.

        Within a graph of torch.compile the step's end can only be noted.
        """
        if torch.compiler.is_compiling():
            self._recording.ended = True
        elif self._recording.begun or self._blind:
            self._guarded(self._advance, optimizer)
        else:
            self._unseen = True

    def _finish_step(self) -> None:
        """End the step that an optimizer within a graph has ended."""
        if self._recording.ended:
            self._recording.ended = False
            self._guarded(self._advance)
        if self._recording.missed:
            self._recording.missed = False
            self._failures.add(
                "the optimizer's step runs within a graph of torch.compile, and so does the pass after it: that pass "
                "is not recorded. Call monitor.log(loss=...) after each step, which ends the step in time"
            )

    def _guarded(self, action: Callable[..., None], *given: Any) -> None:
        """Run ``action``; where it fails, no step ends any more, so nothing of later ones is measured either."""
        self._recording.guard(self._own, action, *given)
        if not self._own.enabled:
            self._recording.active = False
        if self._since is None and self._recorder is not None:  # starting the run is not counted
            self._since = (time.perf_counter(), self.seconds)

    def _advance(self, optimizer: Optimizer | None = None) -> None:
        """End the open step, which ``optimizer`` ended."""
        recording = self._recording
        if self._recorder is None:
            self._start()
        self._submit()
        if recording.active:
            self._seal()
            self._drop_overflow(optimizer)
            self._add_rate(optimizer or next(iter(self._optimizers), None))
        self._steps += 1
        if self._recorder is not None:
            self._recorder.moved()
        recording.begun = False
        recording.active = self._schedule.sampled(self._steps)
        recording.offset = self._schedule.offset(self._steps)
        if recording.traced and recording.active and self._attached is not None:
            self._attached.refresh()

    def _seal(self) -> None:
        """Set the open step aside for ``log``, and make the buffer ready for the next."""
        recording = self._recording
        recording.flush()
        if self._sealed is None:
            self._sealed = recording.buffer.clone()
            assert self._attached is not None
            assert self._rows is not None
            self._rows.first = self._steps, self._attached.seen
        else:
            self._sealed.copy_(recording.buffer)
        recording.buffer.copy_(recording.initial)
        self._sealed_step = self._steps

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
            self._failures.report("learning rate", what, "it is not recorded")
        else:
            _write(self._sealed, self._recording.plan.of_run("learning_rate"), rate)

    def _submit(self) -> None:
        if self._sealed_step is not None and self._sealed is not None and self._recorder is not None:
            self._recorder.overhead = self.overhead
            self._recorder.submit(self._sealed_step, self._sealed)
            self._sealed_step = None

    def _log(self, values: Mapping[str, float | Tensor]) -> None:
        if self._unseen and self._recorder is None and not self._recording.begun:
            self._blind = True
            self._advance(self._optimizers[0])
        if self._recording.begun or self._recorder is None:
            buffer = self._recording.buffer if self._recording.active else None
        else:
            buffer = self._sealed if self._sealed_step is not None else None
        if buffer is not None:
            for name, value in values.items():
                _write(buffer, self._recording.plan.logged[name], value)

    def _refuse_closed(self, what: str) -> None:
        if self._closed:
            raise WatchError(f"{what} was called on a monitor that is closed; call watch again")


_open: "weakref.WeakSet[Monitor]" = weakref.WeakSet()


def _note(monitor: Monitor) -> None:
    """Let a monitor that its user forgets to close be closed when the program ends, before its recorder closes itself.

    One that its user forgets altogether is closed when it is collected.
    """
    atexit.unregister(_at_exit)
    atexit.register(_at_exit)
    _open.add(monitor)


def _at_exit() -> None:
    state = RunState.FAILED if hasattr(sys, "last_value") else RunState.FINISHED
    for monitor in tuple(_open):
        monitor._end(state, wait=monitor._recorder is not None)  # no thread can be started at the end of a program


def _refuse_what_is_no_number(name: str, value: object) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            kind = "a complex tensor" if value.is_complex() else f"a tensor of shape {list(value.shape)}"
            raise WatchError(f"{name} must be a single number, got {kind}; log its mean")
    elif not isinstance(value, Real):
        raise WatchError(
            f"{name} must be a number or a tensor of one, got {type(value).__name__}; log float(...) of it"
        )


def _write(buffer: Tensor, at: slice, value: float | Tensor) -> None:
    if isinstance(value, Tensor):
        buffer[at].copy_(value.detach().reshape(1), non_blocking=True)
    else:
        buffer[at].fill_(value)
