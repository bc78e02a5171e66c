"""HTML for notebooks of what rich prints: self-contained, escaped, in the notebook's own colours."""

import itertools
from collections.abc import Iterator
from html import escape

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Row, Table
from rich.text import Text

from stabmon.records import Severity
from stabmon.terminal import plain

COLOURS = {Severity.ERROR: "#b3261e", Severity.WARNING: "#8a5000", Severity.INFO: "#0b57a4"}
"""Backgrounds of white text, and edges of rows; the rest has the notebook's colours, light or dark."""

_STYLE = "".join(
    [
        ".stabmon{color:inherit;line-height:1.4;max-width:100%;overflow-x:auto}",
        ".stabmon p{margin:.2em 0;white-space:pre-wrap}.stabmon .inner{margin-left:1.5em}",
        ".stabmon table{color:inherit;font-size:inherit;border-collapse:collapse;margin:.5em 0}",
        ".stabmon caption{text-align:left;font-weight:bold;padding:.2em 0;white-space:nowrap}",
        ".stabmon th,.stabmon td{padding:.15em .6em;text-align:left;border-bottom:1px solid rgba(128,128,128,.4)}",
        ".stabmon th.right,.stabmon td.right{text-align:right;white-space:nowrap}",
        ".stabmon b.error,.stabmon b.warning,.stabmon b.info{color:#fff;padding:0 .4em;border-radius:.3em}",
        *(f".stabmon b.{severity}{{background:{colour}}}" for severity, colour in COLOURS.items()),
        *(f".stabmon tr.{severity}{{border-left:4px solid {colour}}}" for severity, colour in COLOURS.items()),
    ]
)
_CLASSES = {severity.style: severity.value for severity in Severity}


def html(*shown: RenderableType) -> str:
    """Return tables, texts and groups of them, as rich prints them, in one element."""
    parts = (part for one in shown for part in _parts(one))
    return f'<div class="stabmon"><style>{_STYLE}</style>{"".join(parts)}</div>'


def _parts(shown: RenderableType) -> Iterator[str]:
    match shown:
        case Group():
            for one in shown.renderables:
                yield from _parts(one)
        case Padding():
            yield f'<div class="inner">{"".join(_parts(shown.renderable))}</div>'
        case Table():
            yield _table(shown)
        case Text() | str():
            yield f"<p>{_text(shown)}</p>"
        case _:
            raise TypeError(f"a notebook shows tables, texts and groups of them, got {type(shown).__name__}")


def _table(table: Table) -> str:
    title = f"<caption>{_text(table.title)}</caption>" if isinstance(table.title, str | Text) else ""
    head = "".join(_cell("th", column, column.header) for column in table.columns)
    body = zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True)
    rows = "".join(_row(row, "".join(map(_cell, ["td"] * len(cells), table.columns, cells))) for row, cells in body)
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(row: Row, cells: str) -> str:
    return f'<tr class="{_CLASSES.get(str(row.style), "")}">{cells}</tr>'


def _cell(tag: str, column: Column, content: RenderableType) -> str:
    assert isinstance(content, str | Text)
    return f'<{tag} class="{column.justify}">{_text(content)}</{tag}>'


def _text(text: str | Text) -> str:
    """Return ``text`` with a badge where it has a severity's style; other styles are left out."""
    if isinstance(text, str):
        return escape(plain(text)).replace("\n", "<br>")
    cuts = sorted({0, len(text.plain), *(cut for span in text.spans for cut in (span.start, span.end))})
    found = []
    for start, end in itertools.pairwise(cuts):
        styles = [str(span.style) for span in text.spans if span.start <= start and end <= span.end]
        kind = next((_CLASSES[style] for style in styles if style in _CLASSES), None)
        inner = _text(text.plain[start:end])
        found.append(inner if kind is None else f'<b class="{kind}">{inner}</b>')
    return "".join(found)
