"""The report of the length sweep: one row a layer and length, and where the bias stops being right."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.table import Table

from stabmon.formatting import number
from stabmon.names import span
from stabmon.records import Record

FACTOR = 3.0
"""Rows that sum to between 1/3 and 3 are taken for right: measured twin ratios of healthy runs are 0.3 to 3, and their
row masses 0.5 to 1.7."""


class LengthReport(Record):
    """One attention before training at one length, over its heads as the glossary says."""

    layer: str
    length: int
    """Tokens of a sequence; without a mask the keys of every row, under a causal one those of the last."""
    row_mass: float
    twin_ratio: float
    """Attention norm over that of softmax on the same q, k, v, over the sampled rows."""
    bias: float
    best_bias: float
    """The bias at which rows would sum to one."""

    @property
    def right(self) -> bool:
        """True if rows sum to about one: within ``FACTOR`` of it."""
        return 1 / FACTOR <= self.row_mass <= FACTOR


def sentences(sweep: Sequence[LengthReport]) -> Iterator[str]:
    """Say over which lengths the bias of each layer is right, layers of the same bias and lengths in one sentence."""
    by_layer = {layer: tuple(rows) for layer, rows in groupby(sweep, key=lambda row: row.layer)}
    alike: dict[tuple[object, ...], list[str]] = {}
    for layer, rows in by_layer.items():
        alike.setdefault((number(rows[0].bias, 4), tuple(row.right for row in rows)), []).append(layer)
    for layers in alike.values():
        yield f"{span(layers)}: {_right_lengths(by_layer[layers[0]])}"


def _right_lengths(rows: Sequence[LengthReport]) -> str:
    right = [row for row in rows if row.right]
    if not right:
        ends = " to ".join(
            f"{number(row.best_bias, 4)} (n = {number(row.length)})" for row in dict.fromkeys((rows[0], rows[-1]))
        )
        return f"b = {number(rows[0].bias, 4)} is right at none of these lengths; rows sum to one at b* = {ends}"
    first, last = right[0], right[-1]
    lengths = f"at n = {number(first.length)}"
    if first is not last:
        lengths = f"from n = {number(first.length)} to {number(last.length)}"
    after = next((row for row in rows if row.length > last.length), None)
    return f"b = {number(rows[0].bias, 4)} is right {lengths}" + (f"; {_instead(after)}" if after else "")


def _instead(row: LengthReport) -> str:
    return (
        f"at n = {number(row.length)} rows sum to {number(row.row_mass)}, and to one at b* = {number(row.best_bias, 4)}"
    )


def sweep_table(sweep: Sequence[LengthReport]) -> Table:
    """Return one row a length, each number from its least to its largest over the layers."""
    table = Table(title="At other lengths", title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("n", "row mass", "twin ratio", "bias", "b*", "right in"):
        table.add_column(name, justify="right", no_wrap=True)
    for length in sorted({row.length for row in sweep}):
        rows = [row for row in sweep if row.length == length]
        right = sum(row.right for row in rows)
        numbers = (_range([getattr(row, name) for row in rows]) for name in _COLUMNS)
        style = None if right == len(rows) else "yellow"
        table.add_row(number(length), *numbers, f"{right} of {len(rows)}", style=style)
    return table


_COLUMNS = ("row_mass", "twin_ratio", "bias", "best_bias")


def _range(values: Sequence[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"
