"""Reference runs: the same metric of a bad and of a good run, as ``runs.json`` keeps them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from stabmon.records import Record
from stabmon.rules.registry import Rule, find

FOLDER = Path(__file__).parent


class Curves(Record):
    """One metric of one real run, one line a layer, or one a head of a single layer."""

    about: str
    """A one-line description of the training."""
    source: str
    """Workload, size, device and torch version of the training."""
    flagged: int | None
    """Step at which the rule first flagged the run, when it was recorded."""
    lines: dict[str, tuple[float | None, ...]]
    """Values by layer or head, one for each of ``steps``; None where nothing was measured."""
    steps: tuple[float, ...]
    """Steps, or numbers of keys; samples between them were left out."""
    loss: float | None = None
    """Mean training loss of the last 20 steps, in nats."""


class ReferenceRuns(Record):
    """The picture of one rule."""

    code: str
    metric: str
    limit: float | None
    """Drawn as a dashed line, where the rule has one number for all of them."""
    across: str = "step"
    """The quantity on the horizontal axis."""
    bad: Curves
    good: Curves


@cache
def reference_runs() -> dict[str, ReferenceRuns]:
    """Return the reference runs of each rule that has one, by code."""
    stored = json.loads((FOLDER / "runs.json").read_text(encoding="utf-8"))
    return {one["code"]: ReferenceRuns.model_validate(one) for one in stored}


def plot_of(code: str, known: Sequence[Rule] | None = None) -> Path | None:
    """Return the picture of the rule called ``code``, or None for a rule without one, such as a user's own.

    known: the rules to look among; None for the catalogue.

    Raises:
        ConfigError: there is no such rule; the nearest code is named.
    """
    path = FOLDER / "plots" / f"{find(code, known).code}.svg"
    return path if path.is_file() else None
