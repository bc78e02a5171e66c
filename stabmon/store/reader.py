"""Reading a run while it is being written: one snapshot a call, downsampled without losing a spike or a NaN."""

import time as clock
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func, select

from stabmon.findings import Finding
from stabmon.records import Failure, Heartbeat, RunInfo, RunState
from stabmon.series import Layout, Series
from stabmon.store import schema
from stabmon.store.column_selection import ColumnSelection, select_columns
from stabmon.store.connect import file_of
from stabmon.store.failed import failures_of
from stabmon.store.live import New, after
from stabmon.store.logged import is_own
from stabmon.store.place import ReadPlace
from stabmon.store.run_file import ReadFile
from stabmon.store.window import Window, read_own, read_window

STALE_AFTER = 3
"""Heartbeat intervals after which the heartbeat of a running run is late."""


class Sizes(NamedTuple):
    """Size of a run."""

    samples: int
    """All samples of all attempts; the cursor of a reader that has seen everything."""
    attempts: int
    columns: int
    bytes: int
    """Of the file and its log, or of its lines in a database."""


class RunReader:
    """One run, read-only, from any thread; made by ``open_run``. Raises ``StoreError`` once the run is gone."""

    def __init__(self, source: ReadPlace) -> None:
        self._source = source
        try:
            with source.snapshot("reading what the run is") as run:
                source.check(run)
                row = run.read(select(schema.run)).one()
                self.info = RunInfo.model_validate_json(row.info)
                self.layout = Layout.model_validate_json(row.layout)
                source.check_contents(run, self.layout)
            self.heartbeat()
            self.findings()
            self.failures()
        except BaseException:
            source.close()
            raise

    def __enter__(self) -> "RunReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what is open."""
        self._source.close()

    def heartbeat(self) -> Heartbeat:
        """Return the state of the run; whether a run that is stored as running does run is seen by its lock and age."""
        with self._source.snapshot("reading the heartbeat") as run:
            row = run.read(select(schema.heartbeat)).one()
            beat = Heartbeat.model_validate({key: value for key, value in row._mapping.items() if key != "run"})
        return beat.model_copy(update={"state": self._seen(beat)}) if beat.state is RunState.RUNNING else beat

    def _seen(self, beat: Heartbeat) -> RunState:
        """Return the state of a run that is stored as running."""
        return state_of(beat, self._source.holder())

    def findings(self) -> list[Finding]:
        """Return all findings, in the order in which they opened."""
        finding = schema.finding.c
        with self._source.snapshot("reading the findings") as run:
            query = select(finding.document).order_by(finding.opened, finding.code, finding.layer)
            return [_finding(document) for document in run.read(query).scalars()]

    def failures(self) -> tuple[Failure, ...]:
        """Return what is missing in the run and why, in the order in which it was seen."""
        with self._source.snapshot("reading the failures") as run:
            return tuple(failures_of(run).values())

    def read(
        self,
        metric: str,
        *,
        layer: str | None = None,
        start: int | None = None,
        stop: int | None = None,
        max_points: int | None = None,
        attempt: int | None = None,
    ) -> Series:
        """Read ``metric``, all layers and heads or those of ``layer``, from step ``start`` up to but without ``stop``.

        A number that the training logged itself has a row for each step at which it was logged, sampled or not.

        max_points: the most rows to return; more samples are put into buckets.
        attempt: as the run stood in this attempt, counted from 1; without it, in the latest. Steps before an attempt's
            first one come from the attempts before it.

        Raises:
            StoreError: no such metric or layer in this run, or the run is gone.
        """
        chosen = select_columns(self.layout, metric, layer)
        return self._read(chosen, Window(start, stop, attempt, max_points))

    def read_layers(
        self,
        metric: str,
        *,
        start: int | None = None,
        stop: int | None = None,
        max_points: int | None = None,
        attempt: int | None = None,
    ) -> Series:
        """Read like ``read``, but one column a layer, reduced as ``series.over_heads`` says; a spot's head is None.

        From 32 samples a bucket on, ``low`` and ``high`` are made of the heads' own extremes, so that they may be wider
        than those of the reduced series, never narrower; ``values`` then is the reduction of the heads' means.
        """
        chosen = select_columns(self.layout, metric, None).reduced()
        return self._read(chosen, Window(start, stop, attempt, max_points))

    def _read(self, chosen: ColumnSelection, window: Window) -> Series:
        with self._source.snapshot(f"reading {chosen.metric}") as run:
            how = read_own if is_own(self.layout, chosen.metric) else read_window
            return how(run, chosen, window)

    def after(self, cursor: int, *, limit: int | None = None) -> New:
        """Return the samples since ``cursor`` (0: all; at most ``limit``), whole rows, and the cursor after them."""
        with self._source.snapshot("reading what is new") as run:
            return after(run, cursor, limit, self.layout)

    @property
    def sizes(self) -> Sizes:
        """Return how large the run is now."""
        with self._source.snapshot("reading its sizes") as run:
            attempts = run.read(select(func.count()).select_from(schema.attempt)).scalar_one()
            samples = run.read(select(schema.heartbeat.c.samples)).scalar_one()
        return Sizes(samples, attempts, self.layout.width, self._source.bytes())


def state_of(beat: Heartbeat, holder: str | None) -> RunState:
    """Return the state of a run stored as running, whose lock ``owner.holder`` says that ``holder`` has."""
    if holder == "":
        return RunState.CRASHED
    if clock.time() - beat.time > STALE_AFTER * beat.interval:
        return RunState.STALE if holder is None else RunState.PAUSED
    return RunState.STARTING if beat.step < 0 else RunState.RUNNING


@lru_cache(maxsize=2048)
def _finding(document: str) -> Finding:
    """Return the finding of a document; the page reads the same ones again and again."""
    return Finding.model_validate_json(document)


def open_run(path: Path | str) -> RunReader:
    """Open a run's folder, or the run.sqlite in it, for reading.

    Raises:
        StoreError: the run is missing, foreign, damaged, or written by a newer stabmon.
    """
    return RunReader(ReadFile(file_of(path)))
