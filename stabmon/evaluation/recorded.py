"""A recorded run in memory: thresholds are replayed over it as often as one likes, without training."""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stabmon.errors import StoreError
from stabmon.findings import Finding, Key
from stabmon.records import Record, RunInfo, Severity
from stabmon.rules import Engine, Limits
from stabmon.series import Floats, Layout
from stabmon.store import open_run

STARTS = "starts.json"
"""Name of the file in a run's folder that holds what preflight measured."""


class StoredPass(Record):
    """Measurements of one forward pass before the training."""

    info: RunInfo
    layout: Layout
    row: str
    """The row's float32 bytes, little end first, in hexadecimal: each bit is kept, those of NaN too."""

    @classmethod
    def of(cls, info: RunInfo, layout: Layout, row: Floats) -> "StoredPass":
        """Return the record of ``row``, float32 [layout.width]."""
        return cls(info=info, layout=layout, row=row.astype("<f4", copy=False).tobytes().hex())


class Starts(Record):
    """Every such pass of one run: at the training's length, and at the evaluation's where that is another."""

    passes: tuple[StoredPass, ...]


class Recorded:
    """The samples of one run, steps [samples] and rows [samples, layout.width], and its starts."""

    def __init__(self, folder: Path) -> None:
        with open_run(folder) as reader:
            self.info, self.layout = reader.info, reader.layout
            new = reader.after(0)
        self.steps, self.rows = new.steps, new.rows
        try:
            self.starts = Starts.model_validate_json((folder / STARTS).read_text()).passes
        except FileNotFoundError as error:
            raise StoreError(f"{folder} holds no {STARTS}: it is no run of an evaluation") from error

    def findings(self, limits: Limits | None = None, ignore: Collection[str] = ()) -> tuple[Finding, ...]:
        """Return what the rules find: first in the starts, then in the samples, step by step."""
        return (*self.at_the_start(limits, ignore), *self.in_the_samples(limits, ignore))

    def at_the_start(self, limits: Limits | None = None, ignore: Collection[str] = ()) -> tuple[Finding, ...]:
        """Return what preflight finds."""
        return tuple(self._at_the_start(limits, ignore))

    def in_the_samples(self, limits: Limits | None = None, ignore: Collection[str] = ()) -> tuple[Finding, ...]:
        """Return what the rules find while the run goes on."""
        return self.findings_and_warnings(limits, ignore)[0]

    def findings_and_warnings(
        self, limits: Limits | None = None, ignore: Collection[str] = ()
    ) -> tuple[tuple[Finding, ...], dict[Key, int]]:
        """Return what the rules find while the run goes on, and at which step each became a warning or worse.

        A finding may open as information and become an error later: it is no warning before.
        """
        engine, warned = Engine(self.info, self.layout, limits, ignore), dict[Key, int]()
        for step, row in zip(self.steps, self.rows, strict=True):
            for finding in engine.observe(int(step), row):
                if finding.severity.rank >= Severity.WARNING.rank:
                    warned.setdefault(finding.key, int(step))
        return engine.findings, warned

    def series(self, metric: str, steps: int) -> npt.NDArray[np.float64]:
        """Return the run-level ``metric`` at each of ``steps`` steps, NaN where it was not sampled."""
        values = np.full(steps, np.nan)
        columns = self.layout.of_metric(metric)
        if columns:
            inside = self.steps < steps
            values[self.steps[inside]] = self.rows[inside, columns[0].start]
        return values

    def _at_the_start(self, limits: Limits | None, ignore: Collection[str]) -> Iterator[Finding]:
        for start in self.starts:
            engine = Engine(start.info, start.layout, limits, ignore)
            engine.observe(0, np.frombuffer(bytes.fromhex(start.row), dtype="<f4"))
            yield from engine.findings
