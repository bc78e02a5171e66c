"""All runs of a store, as the page's table of runs shows them: read once, and again only where a file has changed.

A request never waits for a thousand files: what cannot be read in time is named in the list, and read by a thread for
the next request. The state of a run that lives is looked up each time, because a lock changes no file.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from operator import is_not
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from stabmon.findings import Finding
from stabmon.formatting import flat, number
from stabmon.names import legible
from stabmon.records import LIVING, Record, RunState
from stabmon.series import Floats, Series, worst
from stabmon.store import RunReader, RunSummary
from stabmon.store.interface import RunMark, Store
from stabmon.store.reader import state_of
from stabmon.store.runs import at_state, newest_first

NEW, CHANGED = 0.5, 0.03
"""Seconds that a request spends on reading runs that are new, and runs that have changed."""
EVERY = 4.0
"""Least seconds between two times that a run which is being written is read."""
POINTS = 40
"""Points of a sparkline."""
COLUMNS = 8
"""Most columns of differing configuration."""
PLANNED = ("steps", "max_steps", "total_steps", "num_steps", "train_steps", "max_iters", "iterations")
"""Keys of a configuration that hold the number of steps to come, the surest first."""
_UNSAID = ("name", "dir", "tags")
"""Settings that differ in every run and say nothing."""


class FleetRun(RunSummary):
    """A run with what the table of runs shows of it."""

    planned: int | None = None
    """Number of steps that its configuration names."""
    pace: float | None = None
    """Steps a second, over the latest half of its samples."""
    loss: tuple[float | None, ...] = ()
    """The loss over all samples, at most ``POINTS`` numbers; None where it was not finite or not measured."""
    mass: tuple[float | None, ...] = ()
    """The row mass furthest from 1 of all layers, in the same form."""
    settings: dict[str, str] = Field(default_factory=dict, exclude=True)
    """Its configuration, flat."""
    config: dict[str, str] = Field(default_factory=dict)
    """Its value in each of the columns of the list that it has."""
    found: tuple[Finding, ...] = Field(default=(), exclude=True)
    """Its findings."""
    tags: tuple[str, ...] = ()
    """``tags`` of its configuration."""
    pending: bool = False
    """It has not been read yet, or has changed since."""


class RunList(Record):
    """The runs of the served store, newest first."""

    directory: str
    """The served folder, or the database."""
    columns: tuple[str, ...]
    """Settings that differ between the runs, those that most runs have first."""
    runs: tuple[FleetRun, ...]


class _Known(NamedTuple):
    mark: RunMark
    run: FleetRun | None
    time: float
    """Monotonic time at which it was read."""


class Fleet:
    """The runs of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._marks: dict[str, RunMark] = {}
        self._known: dict[str, _Known] = {}
        self._waiting: deque[str] = deque()
        """Runs to be read, by whoever comes first."""
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._listed: tuple[FleetRun, ...] = ()
        self._json = b""

    def json(self) -> bytes:
        """Return the ``RunList`` of now as JSON, as far as the runs can be read in time.

        Raises:
            StoreError: the folder may not be listed.
        """
        found = self.now()
        with self._lock:
            if not self._json or len(found) != len(self._listed) or any(map(is_not, found, self._listed)):
                self._listed, self._json = found, run_list(self.store.where, found).model_dump_json().encode()
            return self._json

    def now(self) -> tuple[FleetRun, ...]:
        """Return the runs of now in no order, as far as they can be read in time; raise as ``json`` does."""
        with self._lock:
            are_new = self._look()
        deadline = time.monotonic() + (NEW if are_new else CHANGED)
        while time.monotonic() < deadline and self._read_next():
            pass
        with self._lock:
            if self._waiting and self._reader is None:
                self._reader = threading.Thread(target=self._read_on, daemon=True, name="stabmon fleet")
                self._reader.start()
            return self._now()

    def _look(self) -> bool:
        """Note which runs are to be read; return whether there are new ones."""
        there = self._marks = self.store.marks()
        known = {name: self._known[name] for name in there if name in self._known}
        new = [name for name in there if name not in known]
        changed = [name for name, one in known.items() if _is_due(one, there[name])]
        for name in changed:
            one = known[name]
            known[name] = one._replace(run=one.run and one.run.model_copy(update={"pending": True}))
        self._known = known | {name: _Known(RunMark(()), _unread(self.store, name, there[name]), 0.0) for name in new}
        self._waiting = deque([*new, *sorted(changed, key=lambda name: known[name].time)])
        return bool(new)

    def _read_next(self) -> bool:
        """Read one run that waits; return whether there was one."""
        with self._lock:
            if not self._waiting:
                return False
            name = self._waiting.popleft()
            mark = self._marks[name]  # of before it is read: what is written meanwhile is seen the next time
        run = _read(self.store, name)
        with self._lock:
            self._known[name] = _Known(mark, run, time.monotonic())
        return True

    def _read_on(self) -> None:
        """Read what is left, for the requests to come."""
        while self._read_next():
            time.sleep(0.0005)
        with self._lock:
            self._reader = None

    def _now(self) -> tuple[FleetRun, ...]:
        for name, known in self._known.items():
            self._known[name] = known._replace(run=known.run and _in_its_state(self.store, known.run))
        return tuple(known.run for known in self._known.values() if known.run is not None)


def _is_due(known: _Known, mark: RunMark) -> bool:
    """Return whether a run is to be read again; one that is being written not each time."""
    return mark != known.mark and not (mark.is_written and time.monotonic() - known.time < EVERY)


def run_list(where: str, runs: Iterable[FleetRun]) -> RunList:
    """Return ``runs`` in order, with the settings in which they differ."""
    ordered = newest_first(runs)
    columns = _differing([run.settings for run in ordered])
    shown = tuple(
        run.model_copy(update={"config": {key: run.settings[key] for key in columns if key in run.settings}})
        for run in ordered
    )
    return RunList(directory=where, columns=columns, runs=shown)


def _unread(store: Store, name: str, mark: RunMark) -> FleetRun | None:
    return FleetRun(name=legible(name), path=f"{store.where}/{legible(name)}", pending=True) if mark.is_run else None


def _read(store: Store, name: str) -> FleetRun | None:
    found = store.summary(name, _completed)
    return (
        found if found is None or isinstance(found, FleetRun) else FleetRun(**dict(found))
    )  # a problem, or nothing yet


def _completed(reader: RunReader, bare: RunSummary) -> FleetRun:
    """Read what ``FleetRun`` adds."""
    settings = {key: _said(value) for key, value in flat(reader.info.config).items()}
    loss = reader.read("loss", max_points=POINTS) if reader.layout.of_metric("loss") else None
    mass = reader.read_layers("row_mass", max_points=POINTS) if reader.layout.of_metric("row_mass") else None
    return FleetRun(
        **dict(bare),
        planned=_planned(reader.info.config),
        pace=_pace(loss or mass),
        loss=() if loss is None else _sparkline(loss.values[:, 0]),
        mass=() if mass is None else _sparkline(_furthest(worst(mass).values)),
        settings=settings,
        tags=_tags(reader.info.config.get("tags")),
        found=tuple(reader.findings()),
    )


def _tags(given: object) -> tuple[str, ...]:
    named = [given] if isinstance(given, str) else given if isinstance(given, list | tuple) else []
    return tuple(dict.fromkeys(legible(str(tag))[:40] for tag in named))


def _in_its_state(store: Store, run: FleetRun) -> FleetRun:
    """Return ``run`` in the state that its lock and the time say now."""
    beat = run.beat
    if beat is None or beat.state not in (*LIVING, RunState.STALE):
        return run
    held = store.holder(run.name)
    if beat.state is RunState.STARTING and held != "":
        return run  # the first step of a large model takes as long as it takes
    state = state_of(beat, held)
    return run if state is beat.state else at_state(run, beat.model_copy(update={"state": state}))


def _furthest(values: Floats) -> Floats:
    """Return of each row the number furthest from 1 by ratio, NaN where one is NaN."""
    with np.errstate(all="ignore"):
        far = np.nan_to_num(np.abs(np.log(values)), nan=np.inf)
    furthest: Floats = values[np.arange(len(values)), far.argmax(axis=1)]
    return furthest


def _sparkline(values: Floats) -> tuple[float | None, ...]:
    return tuple(float(f"{value:.3g}") if np.isfinite(value) else None for value in values)


def _pace(series: Series | None) -> float | None:
    if series is None or series.times is None or len(series.steps) < 2:
        return None
    half = len(series.steps) // 2 if len(series.steps) > 2 else 0
    seconds = float(series.times[-1] - series.times[half])
    steps = int(series.steps[-1] - series.steps[half])
    return steps / seconds if seconds > 0 and steps > 0 else None


def _said(value: object) -> str:
    if isinstance(value, float):
        return number(value, 4)
    return str(value)[:60]


def _planned(config: Mapping[str, Any]) -> int | None:
    """Return the number of steps that the configuration names, in itself or in a part of it."""
    parts = [config, *(part for part in config.values() if isinstance(part, Mapping))]
    named = (part.get(key) for key in PLANNED for part in parts)
    return next(
        (value for value in named if isinstance(value, int) and not isinstance(value, bool) and value > 0), None
    )


def _differing(settings: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the settings that differ between the runs that have any, those that most runs have first."""
    having = [own for own in settings if own]
    values: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for own in having:
        for key, value in own.items():
            values.setdefault(key, set()).add(value)
            counts[key] = counts.get(key, 0) + 1
    differing = [key for key, seen in values.items() if len(seen) > 1 or counts[key] < len(having)]
    kept = [key for key in differing if key.rpartition(".")[2] not in _UNSAID]
    return tuple(sorted(kept, key=lambda key: -counts[key])[:COLUMNS])
