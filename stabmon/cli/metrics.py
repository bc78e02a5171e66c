"""``stabmon metrics``: the glossary of what is recorded."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stabmon.formatting import number
from stabmon.terminal import Terminal, print_json

if TYPE_CHECKING:
    from stabmon.metrics import MetricDocument


def metrics(
    name: Annotated[str | None, typer.Argument(help="A metric's name, such as row_mass.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the metrics that stabmon records, or print one."""
    from stabmon.metrics import METRICS, document

    documents = [document(each) for each in (METRICS if name is None else [name])]
    if as_json:
        print_json(documents if name is None else documents[0])
    elif name is None:
        Terminal().print(_list(documents))
    else:
        Terminal().print(_one(documents[0]))


def _list(documents: list["MetricDocument"]) -> Table:
    table = Table("metric", "per", "unit", "healthy", "meaning", title="Metrics", title_justify="left")
    for one in documents:
        table.add_row(one.name, one.place, one.unit, "" if one.healthy is None else number(one.healthy), one.text)
    return table


def _one(one: "MetricDocument") -> Table:
    table = Table(box=None, show_header=False, title=one.name, title_justify="left", title_style="bold")
    table.add_row("meaning", one.text)
    table.add_row("unit", one.unit)
    table.add_row("measured per", one.place)
    if one.over_heads is not None:
        table.add_row("over heads", one.over_heads.replace("_", " "))
    table.add_row("over passes", one.over_passes)
    if one.healthy is not None:
        table.add_row("healthy near", number(one.healthy))
    table.add_row("recorded", one.when)
    table.add_row("on the data's path", one.path)
    if one.inputs:
        table.add_row("computed from", ", ".join(one.inputs))
    return table
