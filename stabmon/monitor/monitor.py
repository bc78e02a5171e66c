"""A ``Monitor`` records each sampled step of a training and takes itself off at the end."""

import contextlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from stabmon.batch import Batch, arguments
from stabmon.distributed.exchange import LAST, LAST_FAILED
from stabmon.errors import WatchError
from stabmon.findings import Finding
from stabmon.hooks import Recording
from stabmon.hooks.uncompiled import uncompiled
from stabmon.monitor import program_end
from stabmon.monitor.arrivals import why_no_sample
from stabmon.monitor.attachment import Attachment, weakly
from stabmon.monitor.live_race import LiveRace, Race
from stabmon.monitor.logged import check_logged
from stabmon.monitor.new_run import Reservation
from stabmon.monitor.steps import Steps
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
        self._run, self._recording = run, recording
        self._steps = Steps(self._attached, recording, schedule, optimizers, run, first_step)
        self._closed = False
        self._counting: list[Any] = []
        """Handles of the hooks that count steps."""
        self._race: LiveRace | None = None
        self._overhead: float | None = None
        program_end.closes(self)
        recording.finish_step = weakly(self._finish_step)  # hooks keep the recording

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
                self._steps.start(strict=True)
        except BaseException:
            self._closed = True
            self._take_off()
            raise

    def begin_race(self, options: Race) -> None:
        """Race the model against its softmax twin from its first training pass on. ``watch`` calls this."""
        assert self._attached is not None
        (optimizer,) = self._optimizers
        failures = self._recording.failures
        self._race = LiveRace(self._attached.model, optimizer, options, monitor=weakref.ref(self), failures=failures)
        self._race.put_on()

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
        return self._steps.taken + self._recording.ended

    @property
    def failures(self) -> tuple[str, ...]:
        """Failures to record, store or print, each once; empty in a good run, complete after ``close``."""
        return self._recording.failures.texts

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
        return self._steps.seconds

    @property
    def overhead(self) -> float | None:
        """Seconds in stabmon's code over seconds of training, since the end of the first step.

        They are those of hooks on the training thread, and the processor time of stabmon's own threads, for which a
        training in Python waits, since one thread at a time holds the interpreter; where it waits for a GPU meanwhile,
        the figure is an upper bound of theirs. None before the second step, and where torch.compile took the hooks into
        a graph. Work that a GPU does for stabmon and torch's own calls of hooks (some microseconds each) are not in it:
        ``stabmon bench --overhead`` measures whole steps.
        """
        return self._overhead if self._closed else self._steps.overhead

    @uncompiled
    def log(self, **values: float | Tensor) -> None:
        """Record numbers, such as the loss, for the open step, or for the one just completed when none has begun.

        Every one is kept, also of steps that the schedule does not sample; the last value of a step counts. A tensor
        is copied on its device without waiting for it.

        Raises:
            WatchError: a name was not announced in ``log``, a value is no single number, or the monitor is closed.
        """
        self._refuse_closed("log")
        check_logged(values, self._recording.plan.logged)
        self._finish_step()
        self._steps.log(values)

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
        """Wait until the rows made so far are with sinks and rules; return whether it took less than ``timeout`` s.

        The row of the step just completed is made when the next one begins, since ``log`` may still add to it.
        """
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
        self._steps.end()

    def skipped(self) -> None:
        """Count a step that a GradScaler refused because the loss itself was not finite: no optimizer hook saw it.

        Without this a forward pass that overflows in fp16 is never recorded, however often it repeats. Refusals while
        the scaler looks for its scale, with a finite loss, are no steps and need no call.

        Raises:
            WatchError: the monitor is closed.
        """
        self._refuse_closed("skipped")
        self._steps.end()

    def close(self, *, failed: bool = False) -> None:
        """Take the hooks off, write what is left and end the run; a second call does nothing."""
        self._end(RunState.FAILED if failed else RunState.FINISHED)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # one that was never made whole
            self._end(RunState.FINISHED, wait=False)

    def end_with_program(self, state: RunState) -> None:
        """End the run while the program ends, when no thread can be started any more."""
        self._end(state, wait=self._recorder is not None)

    def _end(self, state: RunState, *, wait: bool = True) -> None:
        if self._closed:
            return
        self._finish_step()
        self._steps.hand_over()
        self._steps.wait_no_more(LAST_FAILED if state is RunState.FAILED else LAST)
        if self._recorder is None and wait and not self._run.resumes:
            self._steps.start_late()
        if self._steps.recorded_none and self._attached is not None:
            taken = self._steps.taken - self._steps.first
            why = why_no_sample(self._attached.seen, steps=taken, optimizer=bool(self._optimizers))
            self._recording.failures.add("no step was recorded", why)
        self._overhead = self.overhead
        self._closed = True
        self._recording.active = False
        self._take_off()
        self._race = None
        if self._attached is not None:
            self._map = self._attached.map
            release(self._attached.model)
        self._attached, self._optimizers = None, ()
        self._steps.let_go()
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
        if self._race is not None:
            self._race.put_on()
        self._counting = [one.register_step_post_hook(self._stepped) for one in self._optimizers]

    def _take_off(self) -> None:
        if self._attached is not None:
            self._attached.take_off()
        if self._race is not None:
            self._race.take_off()
        for handle in self._counting:
            handle.remove()
        self._counting = []

    @property
    def _recorder(self) -> "Recorder | None":
        return self._steps.recorder

    def _backward_began(self) -> None:
        """Submit the last step's row: during a backward pass the interpreter is free for the writer thread."""
        self._finish_step()
        self._steps.submit()

    @uncompiled
    def _stepped(self, optimizer: Optimizer, *_: object) -> None:
        """Run as the post-hook of each optimizer."""
        self._steps.stepped(optimizer)

    def _finish_step(self) -> None:
        self._steps.finish()

    def _refuse_closed(self, what: str) -> None:
        if self._closed:
            raise WatchError(f"{what} was called on a monitor that is closed; call watch again")
