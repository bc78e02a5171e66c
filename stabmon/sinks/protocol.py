"""The interface of a sink: a destination of a run's samples and findings."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from stabmon.findings import Finding
from stabmon.records import Failure, Heartbeat, RunInfo, RunState
from stabmon.series import Floats, Layout, Logged


class Sink(Protocol):
    """Receives one run. ``start`` is called where the run starts, everything else in a thread of the sink's own.

    A sink may raise: the recorder reports its first failure with ``advice`` and keeps calling it, so it can catch up.
    It may hang: the others go on, and closing the run waits ten seconds for it, or its attribute ``closing``.
    """

    name: str
    """Its name in a warning: "store", "TensorBoard"."""

    @property
    def advice(self) -> str:
        """One sentence for the warning: what a failure loses, what is kept, and what to do."""

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Begin the run, at the end of its first step, or in ``watch`` where that is given a batch.

        A ``StabmonError`` that is raised in ``watch`` reaches the user; otherwise the run goes on without the sink.
        """

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Take the row ``values`` [width] float32 of ``step``, sampled at ``time`` (seconds since the epoch).

        The row is read-only, since all sinks share it.
        """

    def findings(self, changed: Sequence[Finding]) -> None:
        """Take the findings that opened, grew or cleared at the latest sample."""

    def close(self, state: RunState) -> None:
        """End the run."""


@runtime_checkable
class Beating(Protocol):
    """A sink that also wants to know every few seconds that the run is alive."""

    def heartbeat(self, beat: Heartbeat) -> None:
        """Take the current state of the run."""


@runtime_checkable
class Logging(Protocol):
    """A sink that also takes numbers that the training logs between samples."""

    def logged(self, values: Sequence[Logged]) -> None:
        """Take them in the order of their steps, all before the sample that comes next."""


@runtime_checkable
class Explaining(Protocol):
    """A sink that also takes what is missing in the run and why."""

    def failures(self, every: Sequence[Failure]) -> None:
        """Take all failures so far, whenever there is a new one or one was seen again."""


@runtime_checkable
class Resuming(Protocol):
    """A sink that treats the findings of a resumed run differently from new ones."""

    def resumed(self, findings: Sequence[Finding]) -> None:
        """Take the findings of the run's earlier part, once, before its first new sample."""


@runtime_checkable
class Discarding(Protocol):
    """A sink that can undo its start; others are closed with the state ``FAILED``."""

    def discard(self) -> None:
        """Leave nothing of a run that could not begin."""
