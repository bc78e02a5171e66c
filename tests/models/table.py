"""The table of docs/models.md: what works with each model. ``python -m tests.models.table`` writes it."""

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import nn

import stabmon
from stabmon.batch import arguments
from stabmon.conversion.lengths import longest
from stabmon.discover import scan
from stabmon.errors import StabmonError
from stabmon.fixes.suggest import make
from tests.models.zoo import ZOO, Entry

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"
COLUMNS = ("model", "watch", "preflight", "as sigmoid", "convert", "apply")
_TABLE = re.compile(r"(<!-- table of models -->\n).*?(\n<!-- end -->)", re.DOTALL)


def row(name: str, entry: Entry) -> tuple[str, ...]:
    """Return the cells of one model: "works", or why it does not."""
    torch.manual_seed(0)
    model = entry.build().train()
    checks: tuple[Callable[[Entry, nn.Module], str | None], ...] = (_watch, _preflight, _as_sigmoid, _convert, _apply)
    return (name, *(_cell(check, entry, copy.deepcopy(model)) for check in checks))


def _cell(check: Callable[[Entry, nn.Module], str | None], entry: Entry, model: nn.Module) -> str:
    try:
        return check(entry, model) or "works"
    except StabmonError as error:
        return str(error).partition("\n")[0].partition(";")[0]


def _watch(entry: Entry, model: nn.Module) -> str | None:
    with stabmon.watch(model, dir=None, console=False, trackers=False) as monitor:
        for step in range(2):
            entry.loss(model, step).backward()
            monitor.step()
    return _missing(monitor.failures)


def _preflight(entry: Entry, model: nn.Module) -> str | None:
    return _missing(stabmon.preflight(model, entry.batch(0)).notes)


def _as_sigmoid(entry: Entry, model: nn.Module) -> str | None:
    if _is_sigmoid(entry):
        return "is sigmoid"
    return _missing(stabmon.preflight(model, entry.batch(0), as_sigmoid=True).notes)


def _convert(entry: Entry, model: nn.Module) -> str | None:
    if _is_sigmoid(entry):
        return "is sigmoid"
    report = stabmon.convert(model, max_length=None if longest(getattr(model, "config", None)) else 64)
    entry.loss(model, 0).backward()
    return report.kept[0].reason if report.kept else None


def _apply(entry: Entry, model: nn.Module) -> str | None:
    """Apply the fix of the bias to a model with sigmoid attention, converted where it has softmax."""
    if not _is_sigmoid(entry):
        stabmon.convert(model, max_length=None if longest(getattr(model, "config", None)) else 64)
    found = stabmon.preflight(model, entry.batch(0)).map.attentions
    for attention in found:
        make("bias", attention, "the table of models", value=-5.0).apply(model)
    after = stabmon.preflight(model, entry.batch(0)).rows
    return None if all(abs(row.bias + 5.0) < 1e-3 for row in after) else "the bias is not -5 afterwards"


@cache
def _is_sigmoid(entry: Entry) -> bool:
    found = scan(entry.build().train(), *arguments(entry.batch(0)))
    return "softmax" not in {site.attention.kind for site in found.sites}


def _missing(texts: tuple[str, ...]) -> str | None:
    return "; ".join(text.partition(": ")[2] for text in texts) or None


def rendered(rows: list[tuple[str, ...]]) -> str:
    """Return the table as Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def on_page() -> dict[str, tuple[str, ...]]:
    """Return the rows that the page holds, by model."""
    found = _TABLE.search(PAGE.read_text())
    lines = [] if found is None else found.group().splitlines()[3:-1]
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    return {one[0]: one for one in cells}


def main() -> None:
    """Write the rows of the models whose packages are here; those of others stay."""
    before = on_page()
    rows = [row(name, entry) if entry.is_there else before.get(name, (name,)) for name, entry in ZOO.items()]
    PAGE.write_text(_TABLE.sub(lambda found: found[1] + rendered(rows) + found[2], PAGE.read_text()))


if __name__ == "__main__":
    main()
