"""trackio: stabmon's numbers are logged at the user's latest step, with ``stabmon/step``; findings are alerts."""

from collections.abc import Mapping, Sequence

import trackio
from trackio.context_vars import current_run
from trackio.run import Run

from stabmon.findings import Digest, Entry, Finding
from stabmon.records import RunInfo, Severity
from stabmon.series import Layout
from stabmon.sinks import findings_table
from stabmon.sinks.tracker import APART, PREFIX, TrackerSink, text, title

_LEVEL = {
    Severity.INFO: trackio.AlertLevel.INFO,
    Severity.WARNING: trackio.AlertLevel.WARN,
    Severity.ERROR: trackio.AlertLevel.ERROR,
}


class TrackioSink(TrackerSink):
    """Writes into ``run``.

    trackio counts its steps itself, and a step of stabmon's own would shift those of the user: numbers wait until the
    user has logged something.
    """

    name = "trackio"
    advice = "numbers and findings are missing there, the store keeps them"

    def __init__(self, run: Run, *, apart: float = APART) -> None:
        super().__init__(apart=apart)
        self._run = run

    @classmethod
    def active(cls) -> "TrackioSink | None":
        """Return a sink for the run of ``trackio.init``, or None."""
        run = current_run.get()
        return None if run is None else cls(run)

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Look whether this release says at which step its user is.

        Raises:
            AttributeError: it does not.
        """
        super().start(info, layout)
        assert self._run._next_step >= 0

    def numbers(self, step: int, time: float, numbers: Mapping[str, float]) -> bool:
        """Log the numbers at the user's latest step; return False where there is none yet."""
        latest: int = self._run._next_step - 1
        if latest >= 0:
            self._run.log({f"{PREFIX}step": step, **numbers}, step=latest)
        return latest >= 0

    def alert(self, entry: Entry) -> None:
        """Send an alert."""
        step = max(self._run._next_step - 1, 0)
        self._run.alert(title(entry), text(entry), level=_LEVEL[entry.severity], step=step)

    def summary(self, found: Digest, findings: Sequence[Finding]) -> None:
        """Log the findings as a report, where the user has logged something."""
        if findings and self._run._next_step > 0:
            text = f"{found.verdict}\n\n{findings_table.markdown(findings)}"
            self._run.log({f"{PREFIX}findings": trackio.Markdown(text)}, step=self._run._next_step - 1)
