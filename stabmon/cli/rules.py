"""``stabmon rules``: the catalogue of rules with their reasons and limits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from stabmon.formatting import number
from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from stabmon.rules import RuleDocument


def rules(
    code: Annotated[str | None, typer.Argument(help="A rule's code or name: ATT001, starved-rows.")] = None,
    rules: Annotated[
        list[Path] | None, typer.Option(help="A Python file with rules of your own; the code in it is run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the rules, or print one rule with its limits, their sources and what fixes it."""
    from stabmon.rules import catalogue, document, gallery, load

    known = catalogue(load(*rules) if rules else ())
    codes = [rule.code for rule in known] if code is None else [code]
    documents = [document(each, known) for each in codes]
    if as_json:
        print_json(documents if code is None else documents[0])
    elif code is None:
        Terminal().print(_list(documents))
    else:
        _print_one(documents[0])
        if (plot := gallery.plot_of(documents[0].code, known)) is not None:
            Terminal().print(f"\nA bad and a good run: {plot}", soft_wrap=True)


def _list(documents: list["RuleDocument"]) -> Table:
    table = Table("rule", "name", "severity", "evidence", "what it flags", title="Rules", title_justify="left")
    table.columns[1].overflow = "fold"  # a name is what is typed into `stabmon rules NAME`: never cut
    for one in documents:
        table.add_row(one.code, one.name, one.severity, one.evidence, _plain(one.title.removeprefix("Flag ")))
    return table


def _print_one(one: "RuleDocument") -> None:
    console = Terminal()
    console.print(Text.assemble((f"{one.code} {one.name}", "bold"), f" ({one.severity}, {one.evidence})"))
    console.print(Text(_plain(one.title)))
    sections = {
        "What it checks": one.checks,
        "Why it matters": one.matters,
        "Suggested fix": one.fix,
        "When the fix is wrong": one.wrong,
        "References": one.references,
    }
    for title, text in sections.items():
        console.print(f"\n{title}", style="bold")
        console.print(Text(_plain(text)))
    table = Table("limit", "default", "unit", "meaning", "source", title="\nLimits", title_justify="left")
    for limit in one.limits:
        table.add_row(limit.name, number(limit.default), limit.unit, limit.text, limit.source)
    console.print(table)


def _plain(text: str) -> str:
    return text.replace("``", "")
