"""Figures of the foreign matrix: what is found, what is alarmed for nothing, what fixes close and what they harm."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from stabmon.errors import StoreError
from stabmon.evaluation.foreign.setup import Split
from stabmon.evaluation.foreign.verdicts import EARLY, ForeignVerdict
from stabmon.evaluation.intervals import Figure, share
from stabmon.records import Record, Severity

FILE = "foreign.json"
"""Name of the file in a split's folder."""


class ForeignReport(Record):
    """Every run of a split, judged, and the ranking of its arms at half and at full length."""

    split: Split
    device: str
    verdicts: tuple[ForeignVerdict, ...]
    agreement: dict[str, float]
    """By family: share of pairs of arms that half the training orders as the whole does."""


class ForeignFigure(Record):
    """A figure with what is aimed at, and the runs that break it."""

    name: str
    wanted: str
    value: Figure
    broken_by: tuple[str, ...]

    @property
    def breaks(self) -> str:
        """The runs that break it."""
        return ", ".join(self.broken_by)


def write(report: ForeignReport, folder: Path) -> Path:
    """Store ``report`` in the folder of its split."""
    path = folder / FILE
    path.write_text(report.model_dump_json(indent=1), encoding="utf-8")
    return path


def read(path: Path) -> ForeignReport:
    """Read a stored report: its file, or the folder of its split.

    Raises:
        StoreError: there is none.
    """
    path = path / FILE if path.is_dir() else path
    try:
        return ForeignReport.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} holds no report ({error}); `stabmon evaluate --families foreign` writes one"
        ) from error


def figures(verdicts: Sequence[ForeignVerdict]) -> list[ForeignFigure]:
    """Return the figures of some runs."""
    failed = [one for one in verdicts if one.why == "failed"]
    well = [one for one in verdicts if one.why == "well"]
    behind = [one for one in verdicts if one.is_behind]
    level = [one for one in verdicts if not one.is_behind]
    started = [one for one in verdicts if any(alarm.at_start for alarm in one.alarms)]
    tried = [one for one in failed if one.fixed is not None]
    alarmed = [one for one in well if one.gain is not None and one.has(Severity.WARNING)]
    return [
        _figure("failed runs found", ">= 0.95", failed, lambda one: bool(one.alarms)),
        _figure(
            "failed and behind softmax, found by a rule or a race",
            "",
            [one for one in failed if one.is_behind],
            lambda one: bool(one.alarms) or one.shown_behind is not None,
        ),
        _figure("ended well, with a warning", "<= 0.05", well, lambda one: one.has(Severity.WARNING), low=True),
        _figure("ended well, with an error", "<= 0.01", well, lambda one: one.has(Severity.ERROR), low=True),
        _figure("first fix closes a failed run", ">= 0.85", tried, lambda one: bool(one.fixed)),
        _figure("failed runs whose first fix could be tried", "", failed, lambda one: one.fixed is not None),
        _figure(
            "harm by the first fix, of runs that ended well", "<= 0.02", alarmed, lambda one: bool(one.harmed), True
        ),
        _figure(
            f"behind softmax found by {EARLY:.0%} of the steps",
            ">= 0.90",
            behind,
            lambda one: one.shown_behind is not None and one.shown_behind <= EARLY * one.steps,
        ),
        _figure("behind softmax found by the end", "", behind, lambda one: one.shown_behind is not None),
        _figure(
            f"level with softmax, called behind by {EARLY:.0%}",
            "",
            level,
            lambda one: one.shown_behind is not None and one.shown_behind <= EARLY * one.steps,
            low=True,
        ),
        _figure("alarmed at step 0 and failed", ">= 0.95", started, lambda one: one.why == "failed"),
    ]


def table(report: ForeignReport) -> Table:
    """Return the figures as a terminal shows them."""
    counts = defaultdict[str, int](int)
    for one in report.verdicts:
        counts[one.why] += 1
    title = f"Foreign models, {report.split}: " + ", ".join(f"{number} {why}" for why, number in sorted(counts.items()))
    found = Table("figure", "wanted", "measured", "of", "broken by", title=title, title_justify="left", box=SIMPLE_HEAD)
    for figure in figures(report.verdicts):
        found.add_row(figure.name, figure.wanted, str(figure.value), str(figure.value.count), figure.breaks)
    return found


def markdown(report: ForeignReport) -> str:
    """Return the figures as the documentation shows them."""
    lines = ["| figure | wanted | measured | runs | broken by |", "|---|---|---|---|---|"]
    for one in figures(report.verdicts):
        lines.append(f"| {one.name} | {one.wanted} | {one.value} | {one.value.count} | {one.breaks} |")
    return "\n".join(lines) + "\n"


def _figure(
    name: str,
    wanted: str,
    runs: Iterable[ForeignVerdict],
    holds: Callable[[ForeignVerdict], bool],
    low: bool = False,
) -> ForeignFigure:
    hits: dict[str, list[bool]] = defaultdict(list)
    broken = []
    for one in runs:
        held = holds(one)
        hits[one.name.rpartition(".")[0]].append(held)
        if held is low:
            broken.append(one.name)
    return ForeignFigure(name=name, wanted=wanted, value=share(hits), broken_by=tuple(broken))
