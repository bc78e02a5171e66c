"""The one way in which stabmon writes numbers and names; ``server/static/text.js`` holds its twin for the page."""

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

SETTINGS = 200
"""Most settings of a configuration that are shown or compared."""
LARGE, SMALL = 1e6, 1e-4
"""Sizes from which, and below which, a number is written with an exponent."""


def number(value: float, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits: 0, 0.0153, 12.3, 1,235, -5.54, 1.05e6, 2e-7, Inf, NaN.

    From 10^(digits - 1) on it is a whole number with commas between thousands, from 1e6 on and below 1e-4 one with an
    exponent. Halves are rounded away from zero, zeros at the end are left out.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    sign, size = "-" if value < 0 else "", abs(value)
    if SMALL <= size < LARGE and size >= 10 ** (digits - 1):
        return f"{sign}{Decimal(size).quantize(Decimal(1), ROUND_HALF_UP):,}"
    rounded = Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal_from_float(size).normalize()
    if rounded == 0:
        return "0"
    if SMALL <= size < LARGE:
        return f"{sign}{rounded:f}"
    mantissa = rounded.scaleb(-rounded.adjusted()).normalize()
    return f"{sign}{mantissa:f}e{rounded.adjusted()}"


def signed(value: float, digits: int = 3) -> str:
    """Return ``value`` as ``number`` does, with a plus before a positive one: a difference."""
    return f"{'+' if value > 0 else ''}{number(value, digits)}"


def measured(value: float, digits: int = 3) -> str:
    """Return ``value`` as ``number`` does, or "-" for NaN, which says here that nothing was measured."""
    return "-" if math.isnan(value) else number(value, digits)


def words(name: str) -> str:
    """Return a name as words: ``row_mass`` is "row mass", ``loss-spike`` is "loss spike"."""
    return name.replace("_", " ").replace("-", " ")


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return at most ``SETTINGS`` nested settings by path: ``{"model": {"heads": 4}}`` is ``{"model.heads": 4}``."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if len(found) >= SETTINGS:
            break
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return dict(list(found.items())[:SETTINGS])


def plural(count: int, word: str) -> str:
    """Return "1 finding", "3 findings"."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"
