"""Module names as the model's author wrote them, and the order in which people count them."""

import re
from collections.abc import Iterable, Sequence

from stabmon.errors import ArgumentError

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Attribute names that torch.compile, DDP, FSDP and activation checkpointing put into a module's path."""

RUN_NAME = r"^\w[\w.-]*$"
"""The form of a run's name, which is also its folder's: letters, digits and '_', from the second on '.' and '-'."""
LONGEST_NAME = 240
"""Most bytes of a run's name; a folder's may have 255, and a number may follow."""

_PATTERN = re.compile(r"\d+|\D+")


def check_run_name(name: object) -> None:
    """Refuse what cannot be a run's name.

    Raises:
        ArgumentError: it is no text that ``RUN_NAME`` describes, or has more than ``LONGEST_NAME`` bytes.
    """
    if not (isinstance(name, str) and re.fullmatch(RUN_NAME, name)):
        raise ArgumentError(
            f"name must be letters, digits and '_', from the second on '.' and '-' too, got {name!r}; "
            "it is the run's folder in dir"
        )
    if len(name.encode()) > LONGEST_NAME:
        raise ArgumentError(f"name must have at most {LONGEST_NAME} bytes, got {len(name.encode())}: {name[:40]!r}...")


def legible(text: str) -> str:
    """Return ``text`` as UTF-8 can write it; what it cannot, such as odd bytes of a file's name, is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def own_name(name: str) -> str:
    """Return ``name`` without the wrappers' parts: ``module.layers.0._orig_mod.a`` is ``layers.0.a``."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key that puts ``layers.2`` before ``layers.10``."""
    parts = _PATTERN.findall(name)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


def padded(name: str, width: int = 2) -> str:
    """Return ``name`` with its numbers zero-padded (``layers.3`` is ``layers.03``), for tools that sort as text."""
    return re.sub(r"\d+", lambda number: number.group().zfill(width), name)


def span(names: Iterable[str]) -> str:
    """Return names in natural order as a range: "layers.3", "layers.0 and layers.1", "layers.0 to layers.3".

    Names that do not follow one another are counted: "3 of layers.0 to layers.7".
    """
    ordered = sorted(set(names), key=natural_key)
    if len(ordered) < 3:
        return " and ".join(ordered)
    ends = f"{ordered[0]} to {ordered[-1]}"
    return ends if _consecutive(ordered) else f"{len(ordered)} of {ends}"


def _consecutive(names: Sequence[str]) -> bool:
    """Return whether ``names`` differ in one number alone, which goes up by one from each to the next."""
    split = [_PATTERN.findall(name) for name in names]
    apart = {at for parts in split for at, part in enumerate(parts) if split[0][at : at + 1] != [part]}
    if len(apart) != 1 or any(len(parts) != len(split[0]) for parts in split):
        return False
    (at,) = apart
    numbers = [int(parts[at]) for parts in split if parts[at].isdecimal()]
    return numbers == list(range(numbers[0], numbers[0] + len(names))) if numbers else False
