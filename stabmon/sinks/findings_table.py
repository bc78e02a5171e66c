"""Findings as a table, for views that have one: rows of text in the digest's order, symptoms under their cause."""

from collections.abc import Iterable, Iterator

from stabmon.findings import Entry, Finding, digest
from stabmon.formatting import plural

HEAD = ("severity", "rule", "where", "when", "what", "fix")
ENTRIES = 50
"""Most rows of a table."""


def rows(findings: Iterable[Finding]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of each group of findings."""
    for entry in digest(findings).entries:
        yield _cells(entry, "")
        yield from (_cells(symptom, "↳ ") for symptom in entry.symptoms)


def markdown(findings: Iterable[Finding]) -> str:
    """Return the first ``ENTRIES`` rows as a markdown table, and the number of those left out."""
    every = list(rows(findings))
    lines = [_line(HEAD), "|---" * len(HEAD) + "|", *map(_line, every[:ENTRIES])]
    if len(every) > ENTRIES:
        lines.append(f"\n{plural(len(every) - ENTRIES, 'more line')}: see `stabmon findings`")
    return "\n".join(lines)


def _cells(entry: Entry, indent: str) -> tuple[str, ...]:
    rule, fix = f"{entry.code} {entry.name}", entry.advice or ""
    return (f"{indent}{entry.severity}", rule, entry.where, entry.when, entry.message, fix)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
