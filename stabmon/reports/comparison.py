"""Runs side by side: settings that differ, findings, the step at which their numbers part, final losses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stabmon.errors import ArgumentError
from stabmon.findings import Digest, Entry, digest
from stabmon.formatting import flat, number, words
from stabmon.records import Record, RunInfo
from stabmon.reports.parting import Parting, Partings, partings
from stabmon.series import is_missing
from stabmon.store import RunReader

FEWEST, MOST = 2, 6
"""Numbers of runs that are compared."""
APART = 0.1
"""Relative difference from which two numbers have parted, where none is asked for."""
ATTENTION = ("kind", "bias", "qk_norm", "hybrid_norm", "layer_scale", "position", "heads", "head_dim", "max_length")
"""Facts of an attention that are compared."""
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
    """First step at which any number is not that of the first run; None for that one, and where all are the same."""
    parts: Parting | None
    """First step at which one differs by more than ``apart`` for three samples in a row."""
    loss_parts: Parting | None
    """The same of the loss."""


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
        _run(readers[0], name, one, shown, apart) for (name, one), shown in zip(named.items(), digests, strict=True)
    ]
    settings = _differing([_settings(one.info) for one in readers])
    return Comparison(apart=apart, settings=settings, findings=_side_by_side(digests), runs=tuple(runs))


def _differing(settings: Sequence[Mapping[str, Any]]) -> tuple[Setting, ...]:
    names = [name for name in dict.fromkeys(name for one in settings for name in one) if not _says_nothing(name)]
    found = [Setting(name=name, values=tuple(_said(one, name) for one in settings)) for name in names]
    return tuple(one for one in found if len(set(one.values)) > 1)


def _settings(info: RunInfo) -> dict[str, Any]:
    """Return the configuration of a run, its attention as it was found, and its versions."""
    attentions = info.model.attentions
    found = {f"attention {words(key)}": [*dict.fromkeys(getattr(one, key) for one in attentions)] for key in ATTENTION}
    said = {name: ", ".join(map(_in_words, values)) for name, values in found.items()}
    model = {"layers": len(attentions), "parameters": info.model.parameters}
    versions = {f"version {name}": version for name, version in info.versions.items()}
    return said | model | flat(info.config) | versions


def _says_nothing(name: str) -> bool:
    return name.rpartition(".")[2] in ("name", "dir")


def _said(configuration: Mapping[str, Any], name: str) -> str | None:
    if name not in configuration:
        return None
    return _in_words(configuration[name])


def _in_words(value: object) -> str:
    """Return ``value`` with six digits of a float, in which a float32 shows no noise."""
    return number(value, 6) if isinstance(value, float) else str(value)


def _side_by_side(digests: Sequence[Digest]) -> tuple[ComparedFinding, ...]:
    found: dict[tuple[str, str], list[list[str]]] = {}
    for at, shown in enumerate(digests):
        for entry in (each for one in shown.entries for each in (one, *one.symptoms)):
            places = found.setdefault((entry.code, entry.name), [[] for _ in digests])
            places[at].append(_place(entry))
    return tuple(
        ComparedFinding(code=code, name=name, places=tuple("; ".join(one) or None for one in places))
        for (code, name), places in found.items()
    )


def _place(entry: Entry) -> str:
    return f"{entry.severity}{'' if entry.open else ', cleared'}: {entry.where}, {entry.when}"


def _run(first: RunReader, name: str, run: RunReader, shown: Digest, apart: float) -> ComparedRun:
    beat = run.heartbeat()
    found = Partings() if run is first else partings(first, run, apart)
    return ComparedRun(
        name=name,
        process=beat.words,
        health=f"{shown.health.title}: {shown.health.text}",
        step=beat.step,
        loss=_final_loss(run),
        differs=found.differs,
        parts=found.parts,
        loss_parts=found.loss_parts,
    )


def _final_loss(run: RunReader) -> float | None:
    if not run.layout.of_metric("loss"):
        return None
    values = run.read("loss").values[:, 0]
    values = values[~is_missing(values)]
    last = values[-max(1, round(FINAL * len(values))) :]
    return float(last.mean(dtype=np.float64)) if len(last) else None
