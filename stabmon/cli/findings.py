"""``stabmon findings``: what was found in a run, as a table or as JSON."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stabmon.findings import Entry, Finding, digest
from stabmon.records import Severity

if TYPE_CHECKING:
    from stabmon.store import RunReader


def findings(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/naive.")],
    again: Annotated[bool, typer.Option("--replay", help="Run the rules over the stored run again.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A limit: att.row_mass_max=6, layers.0/att.row_mass_max=6.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="A YAML file of limits; without it the run's own.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Code of a rule that is not to speak.")] = None,
    rules: Annotated[list[Path] | None, typer.Option(help="A Python file with rules of your own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the findings of a run; the exit code is 1 where one is an error.

    --set, --limits, --ignore and --rules replay the run; what was stored stays as it is.
    """
    from stabmon.store import open_run

    with open_run(run) as reader:
        if again or set_ or limits or ignore or rules:
            found: Sequence[Finding] = _replayed(reader, set_ or (), limits, ignore or (), rules or ())
        else:
            found = reader.findings()
    report(found, as_json=as_json)


def _replayed(
    reader: "RunReader", set_: Sequence[str], limits: Path | None, ignore: Sequence[str], rules: Sequence[Path]
) -> Sequence[Finding]:
    from stabmon.rules import Limits, load, replay
    from stabmon.rules import limits as reading

    base = reading.read(limits) if limits else Limits.from_mapping(reader.info.limits)
    return replay(reader, reading.set_(base, *set_), ignore, load(*rules))


def report(found: Sequence[Finding], *, as_json: bool) -> None:
    """Print ``found`` and exit with 1 where one is an error."""
    if as_json:
        typer.echo(json.dumps([finding.model_dump(mode="json") for finding in found], indent=2))
    elif found:
        Console().print(table(found))
    else:
        Console().print("No findings.")
    if any(finding.severity is Severity.ERROR for finding in found):
        raise typer.Exit(1)


def table(found: Iterable[Finding]) -> Table:
    """Return ``found`` as a table of 80 columns in the digest's order: a group a row, its symptoms under it."""
    shown = digest(found)
    result = Table(title=f"{shown.health.title}: {shown.health.text}", title_justify="left", box=SIMPLE_HEAD)
    result.padding = (0, 1, 0, 0)
    for name in ("rule", "where and when"):
        result.add_column(name, no_wrap=True)
    result.add_column("what")
    for entry in shown.entries:
        _add(result, entry)
        for symptom in entry.symptoms:
            _add(result, symptom, indent="└ ")
    return result


def _add(table: Table, entry: Entry, indent: str = "") -> None:
    rule = Text(f"{indent}{entry.severity} {entry.code}", style=entry.severity.style)
    place = f"{entry.where.replace(' to ', chr(10) + 'to ')}\n{entry.when}"
    what = Text.assemble((entry.name, "bold"), f": {entry.message}")
    if entry.fix is not None and not indent:
        what.append(f"\n{entry.fix}", style="bold")
    table.add_row(rule, Text(place), what)


def by_group(found: Iterable[Finding]) -> list[str]:
    """Return one line a group: its rule, name and place."""
    return [f"{entry.code} {entry.name}, {entry.where}" for entry in digest(found).entries]
