"""``stabmon findings``: what was found in a run, as a table or as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from stabmon.errors import ConfigError
from stabmon.findings import Entry, Finding, digest
from stabmon.records import Failure, RunState, Severity
from stabmon.terminal import Terminal, print_json


def findings(
    run: Annotated[Path, typer.Argument(help="A run's folder, such as runs/naive.")],
    again: Annotated[bool, typer.Option("--replay", help="Run the rules over the stored run again.")] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A limit: att.row_mass_max=6, layers.0/att.row_mass_max=6.")
    ] = None,
    limits: Annotated[Path | None, typer.Option(help="A YAML file of limits; without it the run's own.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Code of a rule to leave out.")] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="A Python file with rules of your own; the code in it is run.")
    ] = None,
    rules_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a replay with --rules is ended.")
    ] = 300,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the findings of a run; the exit code is 1 where one is an error, 2 where the run is damaged.

    --set, --limits, --ignore and --rules replay the run; what was stored stays as it is. --rules runs the code of its
    file, with your rights, in a process of its own; never give it a file that you would not run.
    """
    from stabmon.cli.replay import Replay, replayed, replayed_apart
    from stabmon.store import open_run

    if again or set_ or limits or ignore or rules:
        asked = Replay(run, set_ or (), limits, ignore or (), rules or ())
        found, failures = replayed_apart(asked, rules_timeout) if rules else replayed(asked)
    else:
        with open_run(run) as reader:
            found, failures = reader.findings(), {}
    with open_run(run) as reader:
        words, missing = reader.heartbeat().words, reader.failures()
    if words != RunState.FINISHED:
        Terminal(stderr=True).print(f"State of the run: {words}.")
    print_missing(missing, to_stderr=as_json)
    report(found, failures, as_json=as_json)


def print_missing(missing: Sequence[Failure], *, to_stderr: bool) -> None:
    """Print what is missing in the run and why, a line each."""
    if not missing:
        return
    terminal = Terminal(stderr=to_stderr)
    terminal.print("Missing in this run:")
    for one in missing:
        terminal.print(f"- {one.text}{f' ({one.when})' if one.when else ''}")


def report(found: Sequence[Finding], failures: Mapping[str, str], *, as_json: bool) -> None:
    """Print ``found``; exit with 1 where one is an error, with 2 where a rule failed, so that findings are missing."""
    if as_json:
        print_json(found)
    elif found:
        Terminal().print(table(found))
    else:
        Terminal().print("No findings.")
    if failures:
        said = "; ".join(f"{code}: {error}" for code, error in failures.items())
        raise ConfigError(f"rules failed and were dropped, what they would have found is missing: {said}")
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
    where = f"{entry.where.replace(' to ', chr(10) + 'to ')}\n{entry.when}"
    what = Text.assemble((entry.name, "bold"), f": {entry.message}")
    if entry.fix is not None and not indent:
        what.append(f"\n{entry.fix}", style="bold")
    table.add_row(rule, Text(where), what)


def by_group(found: Iterable[Finding]) -> list[str]:
    """Return one line a group: its rule, name and place."""
    return [f"{entry.code} {entry.name}, {entry.where}" for entry in digest(found).entries]
