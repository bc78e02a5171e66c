"""Findings in sentences: each group's place, numbers, cause, fix, and what follows from it."""

from collections.abc import Iterable, Iterator

from rich.padding import Padding
from rich.text import Text

from stabmon.findings.digest import Entry


def described(entries: Iterable[Entry]) -> Iterator[Text | Padding]:
    """Yield a headline and some sentences for each of ``entries``."""
    for entry in entries:
        yield Text.assemble((f"{entry.code} {entry.name}", entry.severity.style), f", {entry.where}:")
        lines = [f"{entry.message}.", f"Cause: {entry.cause}."]
        lines += [f"Fix: {entry.advice}"] if entry.advice else []
        below = ", ".join(f"{one.code} {one.name}" for one in entry.symptoms)
        lines += [f"With it: {below}."] if below else []
        yield from (Padding(Text(line), (0, 0, 0, 2)) for line in lines)
