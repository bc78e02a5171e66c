"""``stabmon findings``: what was found in a run, as a table or as JSON."""

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stabmon.findings import Finding
from stabmon.names import natural_key
from stabmon.records import Severity

if TYPE_CHECKING:
    from stabmon.rules import Group
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
    """Return ``found`` as a table of 80 columns: grave causes first, what follows from each beneath it.

    The layers of one rule share a row, which shows the first of them and the fix to try first.
    """
    from stabmon.rules import grouped

    result = Table(title="Findings", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("rule", "where", "steps"):
        result.add_column(name, no_wrap=True)
    result.add_column("what")
    bundles: dict[tuple[str, Severity], list[Group]] = {}
    for group in grouped(found):
        bundles.setdefault((group.cause.code, group.cause.severity), []).append(group)
    for groups in bundles.values():
        _add(result, [group.cause for group in groups])
        symptoms: dict[tuple[str, Severity], list[Finding]] = {}
        for symptom in chain.from_iterable(group.symptoms for group in groups):
            symptoms.setdefault((symptom.code, symptom.severity), []).append(symptom)
        for below in symptoms.values():
            _add(result, below, indent="└ ")
    return result


def _add(table: Table, found: list[Finding], indent: str = "") -> None:
    """Add the row of one rule's findings."""
    first = min(found, key=lambda finding: (finding.opened, natural_key(finding.layer or "")))
    layers = sorted({one.layer for one in found if one.layer}, key=natural_key)
    where = f"{layers[0]}\nto {layers[-1]}" if len(layers) > 1 else (layers or ["run"])[0]
    is_open = any(one.cleared is None for one in found)
    end = "now" if is_open else str(max(one.last for one in found))
    steps = str(first.opened) if end == str(first.opened) else f"{first.opened} to {end}"
    fix = f"\n[bold]{escape(str(first.fix))}[/]" if first.fixes and not indent else ""
    rule = f"[{first.severity.style}]{indent}{first.severity} {first.code}[/]"
    table.add_row(rule, where, steps, f"[bold]{first.name}[/]: {escape(first.message)}{fix}")


def by_code(found: Iterable[Finding]) -> list[str]:
    """Return one line a rule: its code, name and the number of layers it speaks of."""
    layers: dict[tuple[str, str], set[str | None]] = {}
    for one in found:
        layers.setdefault((one.code, one.name), set()).add(one.layer)
    return [
        f"{code} {name}" + (f", {len(where)} layers" if len(where) > 1 else "")
        for (code, name), where in sorted(layers.items())
    ]
