"""The evaluation's result: what is stored, and its tables for a terminal and for a README."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table

from stabmon.errors import StoreError
from stabmon.evaluation.matrix import Half
from stabmon.evaluation.scores import BaselineScores, Scores, baseline_scores, scores_by_group
from stabmon.evaluation.verdict import Verdict
from stabmon.records import Record
from stabmon.terminal import json_text

FILE = "evaluation.json"
"""Name of the file in an evaluation's folder."""
HEADS = (
    *("runs", "failed", "undecided", "recall", "precision", "of decided", "false alarms", "of decided"),
    *("lead", "at step 0", "cause", "fixed", "in two", "live"),
)
"""Heads of the rules' table; "of decided" is the figure before it, without the runs whose outcome is undecided."""
_COUNTS = 3
"""Number of those that are numbers of runs."""
_FOUND = 8
"""Number of those about what was found; the others are about its time, its cause and its fix."""
_BASELINE_HEADS = (
    *("baseline", "recall", "precision", "of decided", "alarms a healthy run", "of decided", "lead"),
    *("recall at our precision", "of decided"),
)


class Evaluation(Record):
    """Every run of a matrix, judged, and with what."""

    device: str
    versions: dict[str, str]
    limits: dict[str, Any]
    """Thresholds that differ from the defaults."""
    spreads: dict[str, float]
    """Each workload's spread of the final loss between replicates."""
    verdicts: tuple[Verdict, ...]

    def of(self, half: Half | None) -> list[Verdict]:
        """Return the verdicts of one half, or all."""
        return [one for one in self.verdicts if half in (None, one.half)]


class Figures(Record):
    """The figures of some runs, as ``--json`` prints them."""

    half: Half | None
    rules: tuple[Scores, ...]
    baselines: tuple[BaselineScores, ...]


def write(evaluation: Evaluation, folder: Path) -> Path:
    """Store ``evaluation`` in ``folder``."""
    path = folder / FILE
    path.write_text(evaluation.model_dump_json(exclude_defaults=False))
    return path


def read(path: Path) -> Evaluation:
    """Read a stored evaluation: its file, or the folder that holds it.

    Raises:
        StoreError: there is none.
    """
    file = path / FILE if path.is_dir() else path
    try:
        return Evaluation.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} holds no stored evaluation ({error}); `stabmon evaluate` writes one") from error


def as_json(evaluation: Evaluation, half: Half | None) -> str:
    """Return figures and verdicts of one half, or of all runs, as one JSON object."""
    verdicts = evaluation.of(half)
    figures = Figures(half=half, rules=tuple(scores_by_group(verdicts)), baselines=tuple(baseline_scores(verdicts)))
    kept = evaluation.model_copy(update={"verdicts": tuple(verdicts)})
    return json_text({"figures": figures, "evaluation": kept})


def tables(evaluation: Evaluation, half: Half | None) -> Group:
    """Return the tables of one half, or of all runs, for a terminal."""
    verdicts = evaluation.of(half)
    found = scores_by_group(verdicts)
    runs = half or "all runs"
    return Group(
        _table(found, f"Rules, {runs}", slice(0, _FOUND)),
        _table(found, f"Causes and fixes, {runs}", slice(_FOUND, None)),
        _intervals(found[0]),
        _baselines(baseline_scores(verdicts)),
    )


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Return the tables as a README shows them."""
    lines = [*_markdown_head("", *HEADS), *(_markdown_line(_cells(row)) for row in scores_by_group(verdicts)), ""]
    lines += _markdown_head(*_BASELINE_HEADS)
    lines += [_markdown_line(_baseline_cells(row)) for row in baseline_scores(verdicts)]
    return "\n".join(lines) + "\n"


def _markdown_head(*cells: str) -> list[str]:
    return [_markdown_line(cells), f"|{'---|' * len(cells)}"]


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _table(found: Sequence[Scores], title: str, columns: slice) -> Table:
    """Return a line for each of ``found``; narrow enough for a terminal: some columns, and without the intervals."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("", no_wrap=True)
    for head in HEADS[columns]:
        table.add_column(_narrow(head), justify="right")
    for row in found:
        name, *cells = _cells(row)
        table.add_row(name, *(cell.partition(" [")[0] for cell in cells[columns]))
    return table


def _narrow(head: str) -> str:
    """Return a head with a line for each word, and long words parted."""
    return head.replace(" ", "\n").replace("cision", "-\ncision").replace("cided", "-\ncided")


def _intervals(row: Scores) -> Table:
    table = Table("", "value", "95 %", title="All, with intervals", title_justify="left", box=SIMPLE_HEAD)
    for head, cell in zip(HEADS[_COUNTS:], _cells(row)[_COUNTS + 1 :], strict=True):
        value, _, interval = cell.partition(" ")
        table.add_row(head, value, interval)
    return table


def _baselines(found: Sequence[BaselineScores]) -> Table:
    table = Table(
        title="Baselines on the same series", title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False
    )
    for head in _BASELINE_HEADS:
        table.add_column(_narrow(head), justify="left" if head == _BASELINE_HEADS[0] else "right")
    for row in found:
        table.add_row(*(cell.partition(" [")[0] for cell in _baseline_cells(row)))
    return table


def _cells(row: Scores) -> list[str]:
    found = (row.recall, row.precision, row.precision_of_decided, row.false_alarms, row.false_alarms_of_decided)
    fixed = (row.lead, row.at_start, row.cause, row.fixed, row.fixed_in_two, row.fixed_live)
    return [row.title, *map(str, (row.runs, row.failed, row.undecided)), *map(str, (*found, *fixed))]


def _baseline_cells(row: BaselineScores) -> list[str]:
    figures = (row.recall, row.precision, row.precision_of_decided, row.false_alarms, row.false_alarms_of_decided)
    at = (row.recall_at_our_precision, row.recall_at_our_precision_of_decided)
    return [row.title, *map(str, (*figures, row.lead)), *(f"{recall:.2f}" for recall in at)]
