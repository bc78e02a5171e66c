"""``stabmon findings``: what was found in a run, as a table or as JSON."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from stabmon.records import Finding, Severity

if TYPE_CHECKING:
    from stabmon.store import RunReader


def findings(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/naive.")],
    again: Annotated[bool, typer.Option("--replay", help="Run the rules over the stored run again.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A limit: att.row_mass_max=6, layers.0/att.row_mass_max=6.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="A YAML file of limits; without it the run's own.")] = None,
    silence: Annotated[list[str] | None, typer.Option(help="Code of a rule that is not to speak.")] = None,
    rules: Annotated[list[Path] | None, typer.Option(help="A Python file with rules of your own.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the findings of a run; the exit code is 1 where one is an error.

    --set, --limits, --silence and --rules replay the run; what was stored stays as it is.
    """
    from stabmon.store import open_run

    with open_run(run) as reader:
        if again or set_ or limits or silence or rules:
            found: Sequence[Finding] = _replayed(reader, set_ or (), limits, silence or (), rules or ())
        else:
            found = reader.findings()
    report(found, as_json=as_json)


def _replayed(
    reader: "RunReader", set_: Sequence[str], limits: Path | None, silence: Sequence[str], rules: Sequence[Path]
) -> Sequence[Finding]:
    from stabmon.rules import Limits, load, replay
    from stabmon.rules import limits as reading

    base = reading.read(limits) if limits else Limits.from_mapping(reader.info.limits)
    return replay(reader, reading.set_(base, *set_), silence, load(*rules))


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
    """Return ``found`` as a table: grave causes first, the symptoms that follow from each beneath it."""
    from stabmon.rules import grouped

    result = Table("severity", "rule", "layer", "steps", "what", "first fix", title="Findings", title_justify="left")
    for group in grouped(found):
        _add(result, group.cause)
        for symptom in group.symptoms:
            _add(result, symptom, indent="└ ")
    return result


def _add(table: Table, one: Finding, indent: str = "") -> None:
    end = "" if one.cleared is None else str(one.last)
    fix = f"{one.fixes[0].kind}\n{one.fixes[0].code}" if one.fixes else "-"
    table.add_row(
        f"[{one.severity.style}]{indent}{one.severity}[/]",
        f"{one.code}\n{one.name}",
        one.layer or "run",
        str(one.opened) if end == str(one.opened) else f"{one.opened} to {end or 'now'}",
        one.message,
        f"with {one.follows[0]}" if indent and one.follows else fix,
    )


def by_code(found: Iterable[Finding]) -> list[str]:
    """Return one line a rule: its code, name and the number of layers it speaks of."""
    layers: dict[tuple[str, str], set[str | None]] = {}
    for one in found:
        layers.setdefault((one.code, one.name), set()).add(one.layer)
    return [
        f"{code} {name}" + (f", {len(where)} layers" if len(where) > 1 else "")
        for (code, name), where in sorted(layers.items())
    ]
