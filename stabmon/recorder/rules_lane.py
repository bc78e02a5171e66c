"""The lane of the rules: a thread that evaluates them and keeps what they found."""

from collections.abc import Callable, Sequence
from typing import Protocol

from stabmon.failures import Failures
from stabmon.findings import Finding
from stabmon.recorder.lane import Lane
from stabmon.series import Floats, Logged


class Rules(Protocol):
    """The interface of ``stabmon.rules.Engine`` that the recorder uses."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings so far."""

    def observe(self, step: int, values: Floats) -> Sequence[Finding]:
        """Look at the row of ``step``; return the findings that opened, grew or cleared."""

    def logged(self, values: Sequence[Logged]) -> None:
        """Take what was logged between the sample before and the next one."""


class RulesLane(Lane):
    """Evaluates the rules of ``engine``, or none, in a thread of its own.

    changed: called in that thread with the findings that opened, grew or cleared.
    findings: all findings at the time of the last change.
    """

    def __init__(self, engine: Rules | None, failures: Failures, changed: Callable[[Sequence[Finding]], None]) -> None:
        super().__init__("rules", self._report)
        self.findings: tuple[Finding, ...] = ()
        self._engine, self._failures, self._changed = engine, failures, changed
        self._step = -1

    @property
    def subject(self) -> str:
        """The rule that runs now, as far as that is known."""
        code = getattr(self._engine, "running", None)
        return f"rule {code}" if code else self.name

    def evaluate(self, step: int, values: Floats) -> None:
        """Let the rules see the row of ``step``."""
        if self._engine is not None:
            self.sample(self._observe, step, values)

    def logged(self, values: Sequence[Logged]) -> None:
        """Let the rules know what was logged between samples."""
        if self._engine is not None:
            self.put(self._engine.logged, values)

    def take_findings(self) -> None:
        """Read the engine's findings anew."""
        if self._engine is None:
            return
        try:
            self.findings = tuple(self._engine.findings)
        except BaseException as error:  # a finding that cannot be made must not end the recording
            self._failures.report("findings", repr(error), "they are those of before; please report the bug")

    def _observe(self, step: int, values: Floats) -> None:
        assert self._engine is not None
        self._step = step
        changed = self._engine.observe(step, values)
        for code, what in getattr(self._engine, "failures", {}).items():
            self._failures.note(f"rule {code} is switched off", what)
        if changed:
            self.take_findings()
            self._changed(changed)

    def _report(self, error: BaseException) -> None:
        advice = "recording goes on; look at it again with `stabmon findings RUN --replay`, and report the bug"
        self._failures.report("the rules", f"failed at step {self._step}: {error!r}", advice, step=self._step)
