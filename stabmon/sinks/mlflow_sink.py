"""MLflow: numbers at stabmon's steps, a tag a flagged rule, and the findings as a markdown file."""

import re
from collections.abc import Mapping, Sequence

import mlflow
from mlflow.entities import Metric

from stabmon.findings import Digest, Entry, Finding
from stabmon.sinks import findings_table
from stabmon.sinks.tracker import APART, PREFIX, TrackerSink, text

LENGTH = 5000
"""Most letters of a tag's value that every store takes."""


class MlflowSink(TrackerSink):
    """Writes into the run ``run_id`` of the tracking server or folder that the user has chosen, also after its end."""

    name = "MLflow"
    advice = "numbers and findings are missing there, the store keeps them; look whether the tracking server answers"

    def __init__(self, run_id: str, *, apart: float = APART) -> None:
        super().__init__(apart=apart)
        self._run_id = run_id
        self._client = mlflow.MlflowClient()

    @classmethod
    def active(cls) -> "MlflowSink | None":
        """Return a sink for this thread's active run, or None."""
        run = mlflow.active_run()
        return None if run is None else cls(run.info.run_id)

    def numbers(self, step: int, time: float, numbers: Mapping[str, float]) -> bool:
        """Write one metric a number."""
        at = int(time * 1000)
        metrics = [Metric(_allowed(name), value, at, step) for name, value in numbers.items()]
        self._client.log_batch(self._run_id, metrics, synchronous=True)
        return True

    def alert(self, entry: Entry) -> None:
        """Set a tag of the rule's code."""
        self._client.set_tag(self._run_id, f"stabmon.{entry.code}", f"{entry.severity}: {text(entry)}"[:LENGTH])

    def summary(self, found: Digest, findings: Sequence[Finding]) -> None:
        """Set the run's state as a tag, and write the findings as a file."""
        self._client.set_tag(self._run_id, "stabmon.health", found.verdict[:LENGTH])
        if findings:
            self._client.log_text(self._run_id, findings_table.markdown(findings), f"{PREFIX}findings.md")


def _allowed(name: str) -> str:
    """Return ``name`` with the letters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name)
