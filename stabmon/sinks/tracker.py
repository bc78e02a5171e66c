"""Sinks for experiment trackers: numbers at a bounded rate, one alert a rule and severity, and a summary at the end."""

import sys
import time as clock
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module

from stabmon.failures import Failures
from stabmon.findings import Digest, Entry, Finding, Key, digest
from stabmon.metrics import is_logged
from stabmon.records import Heartbeat, RunInfo, RunState, Severity
from stabmon.series import Floats, Layout
from stabmon.sinks.curves import Curve, curves
from stabmon.sinks.spacing import Apart, Spacing

APART = 1.0
"""Least seconds between two points of a curve: some trackers need milliseconds for a hundred numbers."""
POINTS = 500
"""Samples that all have a point, and the share of the run so far, one in so many, between two later points."""
PREFIX = "stabmon/"
"""The beginning of every name that stabmon gives to a tracker."""
SINKS = {"wandb": "WandbSink", "mlflow": "MlflowSink", "trackio": "TrackioSink"}
"""The sinks by their package's name, each in ``stabmon.sinks.NAME_sink``, which imports the package."""


class TrackerSink(ABC):
    """Brings per-layer curves and findings to a run of an experiment tracker, which the user has started.

    It starts no run and no connection, and shifts no step of the user's. Numbers that the user logs are left to the
    user.
    """

    name: str
    advice: str

    def __init__(self, *, apart: float = APART) -> None:
        self._apart = Apart(apart)
        self._curves: list[Curve] = []
        self._findings: dict[Key, Finding] = {}
        self._alerted: set[tuple[str, Severity]] = set()
        self._point, self._samples = Spacing(1, POINTS), 0
        self._unsent: tuple[int, float, Floats] | None = None

    @classmethod
    @abstractmethod
    def active(cls) -> "TrackerSink | None":
        """Return a sink for the run that is active in this process, or None."""

    @abstractmethod
    def numbers(self, step: int, time: float, numbers: Mapping[str, float]) -> bool:
        """Take the numbers of ``step`` by name; return False where they cannot be taken yet."""

    @abstractmethod
    def alert(self, entry: Entry) -> None:
        """Alert the user: something was flagged."""

    @abstractmethod
    def summary(self, found: Digest, findings: Sequence[Finding]) -> None:
        """Take the run's final state and all findings."""

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Choose the curves."""
        self._curves = [one for one in curves(layout) if not is_logged(one.chosen.metric)]

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Send this row where it is time for it."""
        self._samples += 1
        self._unsent = step, time, values
        if self._point.due(self._samples) and self._apart.due(time):
            self._send()

    def resumed(self, findings: Sequence[Finding]) -> None:
        """Remember the findings of the run's earlier part, of which alerts were sent then."""
        self._findings.update({finding.key: finding for finding in findings})
        self._alerted.update((finding.code, finding.severity) for finding in findings)

    def findings(self, changed: Sequence[Finding]) -> None:
        """Send an alert for each rule that flags something from warning on, once a severity."""
        self._findings.update({finding.key: finding for finding in changed})
        for cause in digest(changed).entries:
            for entry in (cause, *cause.symptoms):
                kind = entry.code, entry.severity
                if entry.open and entry.severity is not Severity.INFO and kind not in self._alerted:
                    self._alerted.add(kind)
                    self.alert(entry)

    def close(self, state: RunState) -> None:
        """Send the latest row, the run's state in a sentence, and all findings."""
        self._send()
        found = list(self._findings.values())
        ended = Heartbeat(state=state, step=self._samples - 1, time=clock.time())
        self.summary(digest(found, beat=ended), found)

    def _send(self) -> None:
        if self._unsent is None:
            return
        step, time, values = self._unsent
        numbers = {PREFIX + tag: value for curve in self._curves for tag, value in curve.numbers(values)}
        if self.numbers(step, time, numbers):
            self._unsent = None
            self._apart.written(time)
            self._point.written(self._samples)


def active_trackers(failures: Failures) -> list[TrackerSink]:
    """Return a sink for each tracker that has an active run in this process; imports none that is not imported."""
    found: list[TrackerSink] = []
    for package, name in SINKS.items():
        if package not in sys.modules:
            continue
        try:
            sink: TrackerSink | None = getattr(import_module(f"stabmon.sinks.{package}_sink"), name).active()
        except Exception as error:  # of a release that is too old or too new, which must not stop the training
            failures.report(package, repr(error), "the run goes on without it")
        else:
            found += [] if sink is None else [sink]
    return found


def title(entry: Entry) -> str:
    """Return an alert's title."""
    return f"stabmon: {entry.code} {entry.name}"


def text(entry: Entry) -> str:
    """Return an alert's text: place, time, numbers, fix."""
    return f"{entry.place_and_time}: {entry.message}.{f' Fix: {entry.fix}.' if entry.fix else ''}"
