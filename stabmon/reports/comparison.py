"""Runs side by side: settings that differ, findings, the step at which their numbers part, final losses."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stabmon.errors import ArgumentError
from stabmon.findings import Digest, Entry, digest
from stabmon.formatting import flat, number
from stabmon.metrics import on_path
from stabmon.records import Record
from stabmon.series import Series, is_missing
from stabmon.store import RunReader

FEWEST, MOST = 2, 6
"""Numbers of runs that are compared."""
APART = 0.05
"""Relative difference from which two numbers have parted, where none is asked for."""
FINAL = 0.1
"""Share of the samples, the last ones, whose mean is the final loss."""


class Setting(Record):
    """A setting in which the runs differ."""

    name: str
    values: tuple[str | None, ...]
    """One a run; None where it has no such setting."""


class ComparedFinding(Record):
    """The findings of one rule in each run."""

    code: str
    name: str
    places: tuple[str | None, ...]
    """Severity, place and time, one a run; None where it found nothing."""


class Parting(Record):
    """The first step at which a number of a run is not that of the first run."""

    step: int
    metric: str
    layer: str | None
    first: float
    """The number of the first run."""
    other: float


class ComparedRun(Record):
    """One of the runs that are compared."""

    name: str
    process: str
    health: str
    step: int
    """Its last step."""
    loss: float | None
    """The mean of the last tenth of its losses; None where none was logged."""
    differs: Parting | None
    """Where any number is not the same as in the first run; None for that one, and where all are the same."""
    parts: Parting | None
    """Where one differs by more than ``apart``."""
    loss_parts: Parting | None
    """Where the loss does."""


class Comparison(Record):
    """Several runs side by side; the first is the one that the others are compared with."""

    apart: float
    """Relative difference from which two numbers have parted."""
    settings: tuple[Setting, ...]
    findings: tuple[ComparedFinding, ...]
    runs: tuple[ComparedRun, ...]


def compare(named: Mapping[str, RunReader], apart: float = APART) -> Comparison:
    """Compare runs, by name, with the first of them.

    apart: relative difference, of the larger of two numbers, from which they have parted.

    Raises:
        ArgumentError: fewer than two runs, or more than six.
        StoreError: one cannot be read.
    """
    readers = [*named.values()]
    if not FEWEST <= len(readers) <= MOST:
        raise ArgumentError(f"expected {FEWEST} to {MOST} runs to compare, got {len(readers)}")
    digests = [digest(one.findings(), layers=len(one.info.model.attentions), beat=one.heartbeat()) for one in readers]
    runs = [
        _run(readers[0], name, one, words, apart) for (name, one), words in zip(named.items(), digests, strict=True)
    ]
    settings = _differing([flat(one.info.config) for one in readers])
    return Comparison(apart=apart, settings=settings, findings=_side_by_side(digests), runs=tuple(runs))


def _differing(configurations: Sequence[Mapping[str, Any]]) -> tuple[Setting, ...]:
    names = dict.fromkeys(name for one in configurations for name in one)
    settings = [Setting(name=name, values=tuple(_said(one, name) for one in configurations)) for name in names]
    return tuple(one for one in settings if len(set(one.values)) > 1)


def _said(configuration: Mapping[str, Any], name: str) -> str | None:
    if name not in configuration:
        return None
    value = configuration[name]
    return number(value, 6) if isinstance(value, float) else str(value)


def _side_by_side(digests: Sequence[Digest]) -> tuple[ComparedFinding, ...]:
    found: dict[tuple[str, str], list[list[str]]] = {}
    for at, words in enumerate(digests):
        for entry in (each for one in words.entries for each in (one, *one.symptoms)):
            places = found.setdefault((entry.code, entry.name), [[] for _ in digests])
            places[at].append(_place(entry))
    return tuple(
        ComparedFinding(code=code, name=name, places=tuple("; ".join(one) or None for one in places))
        for (code, name), places in found.items()
    )


def _place(entry: Entry) -> str:
    return f"{entry.severity}{'' if entry.open else ', cleared'}: {entry.where}, {entry.when}"


def _run(first: RunReader, name: str, run: RunReader, words: Digest, apart: float) -> ComparedRun:
    beat = run.heartbeat()
    differs, parts = (None, None) if run is first else (_parting(first, run, 0.0), _parting(first, run, apart))
    loss_parts = None if run is first else _parting(first, run, apart, ["loss"])
    return ComparedRun(
        name=name,
        process=beat.words,
        health=f"{words.health.title}: {words.health.text}",
        step=beat.step,
        loss=_final_loss(run),
        differs=differs,
        parts=parts,
        loss_parts=loss_parts,
    )


def _final_loss(run: RunReader) -> float | None:
    if not run.layout.of_metric("loss"):
        return None
    values = run.read("loss").values[:, 0]
    values = values[~is_missing(values)]
    last = values[-max(1, round(FINAL * len(values))) :]
    return float(last.mean(dtype=np.float64)) if len(last) else None


class _Place(NamedTuple):
    step: int
    rank: tuple[int, int]
    """The metric's place on the data's path."""
    parting: Parting


def _parting(first: RunReader, other: RunReader, apart: float, metrics: Sequence[str] | None = None) -> Parting | None:
    """Return the earliest parting in all metrics that both record; of one step the first on the data's path."""
    both = [name for name in first.layout.metrics if other.layout.of_metric(name)]
    found = []
    for name in both if metrics is None else [name for name in metrics if name in both]:
        own = _of_metric(first.read_layers(name), other.read_layers(name), apart)
        if own is not None:
            path, rank = on_path(name)
            found.append(_Place(own.step, (path.value, rank), own))
    return min(found, key=lambda place: place[:2]).parting if found else None


def _of_metric(first: Series, other: Series, apart: float) -> Parting | None:
    _, mine, theirs = np.intersect1d(first.steps, other.steps, return_indices=True)
    layers = [spot.layer for spot in first.spots]
    columns = {spot.layer: at for at, spot in enumerate(other.spots)}
    shared = [(at, columns[layer]) for at, layer in enumerate(layers) if layer in columns]
    if not shared or not len(mine):
        return None
    a = first.values[mine][:, [at for at, _ in shared]]
    b = other.values[theirs][:, [at for _, at in shared]]
    where = _parted(a, b, apart)
    if not where.any():
        return None
    row = int(where.any(axis=1).argmax())
    column = int(where[row].argmax())
    step, layer = int(first.steps[mine[row]]), layers[shared[column][0]]
    return Parting(
        step=step, metric=first.metric, layer=layer, first=float(a[row, column]), other=float(b[row, column])
    )


def _parted(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], apart: float) -> npt.NDArray[np.bool_]:
    """Return where ``a`` and ``b`` [S, C] differ by more than ``apart``; NaN differs from every number, missing not."""
    with np.errstate(all="ignore"):
        size = np.maximum(np.abs(a), np.abs(b)).astype(np.float64)
        far = np.abs(a.astype(np.float64) - b) > apart * size
    odd = (np.isnan(a) != np.isnan(b)) | ((np.isinf(a) | np.isinf(b)) & (a != b) & ~(np.isnan(a) & np.isnan(b)))
    result: npt.NDArray[np.bool_] = (far | odd) & ~is_missing(a) & ~is_missing(b)
    return result
