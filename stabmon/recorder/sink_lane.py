"""The lanes of a run's sinks: how they start, are kept alive and end."""

import contextlib
from collections.abc import Sequence

from stabmon.errors import StabmonError
from stabmon.failures import Failures
from stabmon.findings import Finding
from stabmon.recorder.lane import Lane
from stabmon.records import Failure, Heartbeat, RunInfo, RunState
from stabmon.series import Layout, Logged
from stabmon.sinks.protocol import Beating, Discarding, Explaining, Logging, Resuming, Sink


def start_sinks(
    sinks: Sequence[Sink], info: RunInfo, layout: Layout, failures: Failures, *, strict: bool
) -> "list[SinkLane]":
    """Start each sink and return their lanes, which are not started yet; one that fails is left out.

    Raises:
        StabmonError: with ``strict``, that of a sink whose use was wrong; nothing is left of the others.
    """
    started: list[SinkLane] = []
    for sink in sinks:
        try:
            sink.start(info, layout)
        except BaseException as error:  # a sink that cannot start must not stop the training
            if isinstance(error, KeyboardInterrupt) or (strict and isinstance(error, StabmonError)):
                for other in started:
                    other.discard()
                raise
            failures.report(sink.name, str(error) or repr(error), "the run goes on without it")
            continue
        started.append(SinkLane(sink, failures))
    return started


class SinkLane(Lane):
    """The thread of a sink, and what is handed to it beside samples."""

    def __init__(self, sink: Sink, failures: Failures) -> None:
        super().__init__(str(getattr(sink, "name", type(sink).__name__)), self._report)
        self.sink, self._failures = sink, failures
        self._explained: tuple[Failure, ...] = ()

    def resumed(self, found: list[Finding]) -> None:
        """Hand over the findings of a run that goes on: a kill may have come before they were written."""
        self.put(self.sink.resumed if isinstance(self.sink, Resuming) else self.sink.findings, found)

    def logged(self, values: Sequence[Logged]) -> None:
        """Hand over numbers that were logged between samples."""
        if isinstance(self.sink, Logging):
            self.put(self.sink.logged, values)

    def explain(self) -> None:
        """Hand over what is missing and why, where that has changed."""
        now = self._failures.records
        if isinstance(self.sink, Explaining) and now != self._explained and self.put(self.sink.failures, now):
            self._explained = now

    def beat(self, beat: Heartbeat) -> None:
        """Hand over a heartbeat, with what this sink has lost."""
        if isinstance(self.sink, Beating):
            self.put(self.sink.heartbeat, beat.model_copy(update={"dropped": beat.dropped + self.lost}))

    def finish(self, found: list[Finding], beat: Heartbeat, state: RunState) -> None:
        """Hand over every finding, since the last step of one that goes on is not written before, and close."""
        if isinstance(self.sink, Beating):
            last = beat.model_copy(update={"dropped": beat.dropped + self.lost})
            calls = [(self.sink.heartbeat, (last,))]
        else:
            calls = []
        if found:
            calls.insert(0, (self.sink.findings, (found,)))  # type: ignore[arg-type]
        self.explain()
        self.end(*calls, (self._close, (state,)))

    def discard(self) -> None:
        """End the sink of a run that has not begun."""
        try:
            if isinstance(self.sink, Discarding):
                self.sink.discard()
            else:
                self.sink.close(RunState.FAILED)
        except Exception as error:
            self._report(error)

    def _close(self, state: RunState) -> None:
        """Close the sink; what is lost at the end is said even where its failure was reported before."""
        try:
            self.sink.close(state)
        except BaseException as error:
            self._failures.add(f"{self.name}, closing the run", str(error) or repr(error))
        if self.lost:
            self._failures.add(self.name, f"{self.lost:,} samples were lost because it was too slow or hung")

    def _report(self, error: BaseException) -> None:
        advice = "the sink gives no advice"
        with contextlib.suppress(Exception):
            advice = self.sink.advice
        self._failures.report(self.name, str(error) or repr(error), advice)
