"""``stabmon findings``: what was found in a run, as a table or as JSON."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stabmon.records import Finding, Severity


def findings(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/naive.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the findings of a run; the exit code is 1 where one is an error."""
    from stabmon.store import open_run

    with open_run(run) as reader:
        found = reader.findings()
    report(found, as_json=as_json)


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
    """Return ``found`` as a table, gravest first."""
    result = Table("severity", "rule", "layer", "steps", "what", "first fix", title="Findings", title_justify="left")
    for one in sorted(found, key=lambda finding: (-finding.severity.rank, finding.opened)):
        end = "" if one.cleared is None else str(one.last)
        result.add_row(
            f"[{one.severity.style}]{one.severity}[/]",
            f"{one.code}\n{one.name}",
            one.layer or "run",
            str(one.opened) if end == str(one.opened) else f"{one.opened} to {end or 'now'}",
            one.message,
            f"{one.fixes[0].kind}\n{one.fixes[0].code}" if one.fixes else "-",
        )
    return result


def by_code(found: Iterable[Finding]) -> list[str]:
    """Return one line a rule: its code, name and the number of layers it speaks of."""
    layers: dict[tuple[str, str], set[str | None]] = {}
    for one in found:
        layers.setdefault((one.code, one.name), set()).add(one.layer)
    return [
        f"{code} {name}" + (f", {len(where)} layers" if len(where) > 1 else "")
        for (code, name), where in sorted(layers.items())
    ]
