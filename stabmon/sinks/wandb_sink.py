"""Weights & Biases: stabmon's numbers join the rows that the user logs, over ``stabmon/step``; findings are alerts."""

from collections.abc import Mapping, Sequence

import wandb

from stabmon.findings import Digest, Entry, Finding
from stabmon.records import RunInfo, Severity
from stabmon.series import Layout
from stabmon.sinks import findings_table
from stabmon.sinks.tracker import APART, PREFIX, TrackerSink, text, title

STEP = f"{PREFIX}step"
_LEVEL = {Severity.INFO: "INFO", Severity.WARNING: "WARN", Severity.ERROR: "ERROR"}


class WandbSink(TrackerSink):
    """Writes into ``run``, online or offline as the user has started it.

    Numbers wait for the next row that the user logs, or the end of the run, since a row of stabmon's own would shift
    the steps of the user's. Where the user logs less often than stabmon samples, the latest ones are kept.
    """

    name = "Weights & Biases"
    advice = "numbers and findings are missing there, the store keeps them; close the monitor before the run of wandb"

    def __init__(self, run: wandb.Run, *, apart: float = APART) -> None:
        super().__init__(apart=apart)
        self._run = run
        self._sent: set[str] = set()

    @classmethod
    def active(cls) -> "WandbSink | None":
        """Return a sink for ``wandb.run``, or None."""
        return None if wandb.run is None else cls(wandb.run)

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Make stabmon's step the axis of its numbers."""
        super().start(info, layout)
        self._run.define_metric(f"{PREFIX}*", step_metric=STEP)

    def numbers(self, step: int, time: float, numbers: Mapping[str, float]) -> bool:
        """Add the numbers to the open row; what was sent for an earlier step, and is missing now, is emptied."""
        missing = dict.fromkeys(self._sent - numbers.keys())
        self._run.log({STEP: step, **numbers, **missing}, commit=False)
        self._sent |= numbers.keys()
        return True

    def alert(self, entry: Entry) -> None:
        """Send an alert."""
        self._run.alert(title(entry)[:63], text(entry), level=_LEVEL[entry.severity])

    def summary(self, found: Digest, findings: Sequence[Finding]) -> None:
        """Write the run's state into the summary, and the findings as a table."""
        self._run.summary[f"{PREFIX}health"] = found.verdict
        if findings:
            table = wandb.Table(
                columns=list(findings_table.HEAD), data=[list(row) for row in findings_table.rows(findings)]
            )
            self._run.log({f"{PREFIX}findings": table}, commit=False)
