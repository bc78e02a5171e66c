"""``stabmon compare``: runs side by side."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from stabmon.formatting import number
from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from stabmon.reports.comparison import Comparison
    from stabmon.reports.parting import Parting


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Two to six folders of runs; the others are compared with the first.")
    ],
    apart: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Relative difference from which two numbers, for three samples in a row, have parted."
        ),
    ] = 0.1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare runs: the settings in which they differ, their findings, the step at which they part, their losses."""
    from stabmon.reports.comparison import compare as compared
    from stabmon.store import open_run

    with ExitStack() as opened:
        result = compared({name: opened.enter_context(open_run(run)) for name, run in named(runs).items()}, apart)
    if as_json:
        print_json(result)
    else:
        for table in tables(result):
            Terminal().print(table)


def named(runs: Sequence[Path]) -> dict[str, Path]:
    """Return ``runs`` by the names of their folders, or by their paths where two have one name."""
    names = [run.resolve().name for run in runs]
    return dict(zip(map(str, runs) if len({*names}) < len(names) else names, runs, strict=True))


def tables(result: "Comparison") -> list[Table]:
    """Return the comparison as tables, the configuration first."""
    names = [run.name for run in result.runs]
    settings = _table("Settings that differ", "setting", *names)
    for setting in result.settings:
        settings.add_row(setting.name, *(value or "-" for value in setting.values))
    findings = _table("Findings", "rule", *names)
    for one in result.findings:
        findings.add_row(f"{one.code} {one.name}", *(place or "-" for place in one.places))
    ends = _table("Runs", "", *names)
    ends.add_row("process", *(run.process for run in result.runs))
    ends.add_row("health", *(run.health for run in result.runs))
    ends.add_row("last step", *(str(run.step) for run in result.runs))
    ends.add_row("final loss", *("-" if run.loss is None else number(run.loss, 4) for run in result.runs))
    ends.add_row("first difference", *(_said(run.differs) for run in result.runs))
    ends.add_row(f"parts by {100 * result.apart:g} %", *(_said(run.parts) for run in result.runs))
    ends.add_row("its loss does", *(_said(run.loss_parts) for run in result.runs))
    return [settings, findings, ends]


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in table.columns:
        column.overflow = "fold"
    return table


def _said(parting: "Parting | None") -> str:
    if parting is None:
        return "-"
    place = "" if parting.layer is None else f" of {parting.layer}"
    numbers = f"{number(parting.first, 4)} and {number(parting.other, 4)}"
    return f"step {parting.step}: {parting.metric}{place}, {numbers}"
