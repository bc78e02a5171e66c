"""Thresholds from the tuning half: one limit after another, replayed over what was recorded, without training.

Each limit is tried at ``FACTORS`` times its default. A run is decided rightly where it has an alarm and failed, or has
none and is healthy; of values that decide as many, the one with fewer rules that flag healthy runs wins, then the
one nearest the default: a limit that decides nothing stays where its source put it. The held-out half is never read.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from stabmon.evaluation.pool import Pool
from stabmon.evaluation.recorded import Recorded
from stabmon.evaluation.verdict import as_alarms
from stabmon.rules import Limits, catalogue
from stabmon.rules.limits import documents

FACTORS = (0.25, 0.5, 0.71, 1.41, 2.0, 4.0)
"""Factors on a default; whole numbers are rounded, and what is at most one stays so: it is a share."""
ROUNDS = 2
"""Times the list of limits is gone through, where the first changed any."""
FILE = "limits.yaml"
"""Name of the file in an evaluation's folder."""

Flagged = list[frozenset[str]]
"""Codes of the rules that have an alarm, by run."""


class Tried(NamedTuple):
    """One run of the tuning half: where it is recorded, and whether it failed."""

    folder: Path
    failed: bool


class Rank(NamedTuple):
    """Order of some limits; the greater the better."""

    right: int
    quiet: int
    """Minus the number of rules that flag healthy runs."""
    near: float
    """Minus the distance from the default, in octaves."""


class Search:
    """A coordinate search; it keeps which rules flag each run, so that only the rules of a limit are replayed."""

    def __init__(self, runs: Sequence[Tried], limits: Limits, pool: Pool) -> None:
        self.runs, self.limits, self._pool = runs, limits, pool
        self.flagged = self._replayed(limits, {rule.code for rule in catalogue()})

    def improve(self, name: str) -> bool:
        """Try the values of one limit and keep the best; return whether that changed it."""
        codes = {rule.code for rule in catalogue() if any(limit.name == name for limit in rule.limits)}
        best, changed = self._rank(self.flagged, name, self.limits), False
        for limits in self._candidates(name) if codes else ():
            new = self._replayed(limits, codes)
            flagged = [(old - codes) | said for old, said in zip(self.flagged, new, strict=True)]
            rank = self._rank(flagged, name, limits)
            if rank > best:
                best, changed, self.limits, self.flagged = rank, True, limits, flagged
        return changed

    def _candidates(self, name: str) -> Iterator[Limits]:
        default = value_of(Limits(), name)
        for factor in FACTORS:
            value = max(1, round(default * factor)) if isinstance(default, int) else float(f"{default * factor:.3g}")
            is_share = default <= 1
            if value != value_of(self.limits, name) and not (is_share and value > 1):
                yield self.limits.changed({name: value})

    def _rank(self, flagged: Flagged, name: str, limits: Limits) -> Rank:
        right = sum(bool(codes) == run.failed for codes, run in zip(flagged, self.runs, strict=True))
        false_alarms = sum(len(codes) for codes, run in zip(flagged, self.runs, strict=True) if not run.failed)
        near = -abs(math.log2(value_of(limits, name) / value_of(Limits(), name)))
        return Rank(right, -false_alarms, near)

    def _replayed(self, limits: Limits, codes: Collection[str]) -> Flagged:
        ignore = tuple(rule.code for rule in catalogue() if rule.code not in codes)
        task = partial(_flags, limits=limits, ignore=ignore)
        found = dict(self._pool.each(task, [run.folder for run in self.runs]))
        return [found[run.folder] for run in self.runs]


def tune(runs: Sequence[Tried], limits: Limits, pool: Pool) -> Limits:
    """Return limits that decide ``runs`` better, or as well and nearer the defaults."""
    names = [document.name for document in documents() if math.isfinite(document.default)]
    search = Search(runs, limits, pool)
    for _ in range(ROUNDS):
        improved = [search.improve(name) for name in names]
        if not any(improved):
            break
    return search.limits


def write(limits: Limits, folder: Path) -> Path:
    """Write what differs from the defaults, as ``Limits.from_mapping`` reads it."""
    path = folder / FILE
    path.write_text(yaml.safe_dump(limits.differences or {}, sort_keys=True))
    return path


def value_of(limits: Limits, name: str) -> Any:
    """Return the limit called ``name``, such as ``att.row_mass_max``."""
    family, _, field = name.partition(".")
    return getattr(getattr(limits, family), field)


def _flags(folder: Path, limits: Limits, ignore: Collection[str]) -> tuple[Path, frozenset[str]]:
    found = _recorded(folder).findings(limits, ignore)
    return folder, frozenset(one.code for one in as_alarms(found))


@cache
def _recorded(folder: Path) -> Recorded:
    return Recorded(folder)
