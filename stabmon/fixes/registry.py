"""The registry of fix kinds: a kind joins it by ``@register``, and everything else finds it by its name. No torch."""

from difflib import get_close_matches
from typing import TypeVar

from stabmon.errors import FixError
from stabmon.fixes.kind import FixKind

Kind = TypeVar("Kind", bound=type[FixKind])
_KINDS: dict[str, FixKind] = {}


def register(kind: Kind) -> Kind:
    """Add a kind of fix, by its class.

    Raises:
        ValueError: the name is no identifier in lower case, or another kind has it.
    """
    name = kind.name
    if not name.isidentifier() or name != name.lower():
        raise ValueError(f"the name of a fix kind is an identifier in lower case, got {name!r}")
    if name in _KINDS:
        raise ValueError(f"the fix kind {name!r} is there already, from {type(_KINDS[name]).__module__}")
    _KINDS[name] = kind()
    return kind


def unregister(name: str) -> None:
    """Take the kind called ``name`` out again.

    Raises:
        FixError: there is none.
    """
    find(name)
    del _KINDS[name]


def find(name: str) -> FixKind:
    """Return the kind called ``name``.

    Raises:
        FixError: there is none; the nearest name and all names are given.
    """
    kind = _KINDS.get(name)
    if kind is None:
        near = get_close_matches(name, _KINDS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise FixError(f"unknown fix kind {name!r}; {hint}expected one of {', '.join(_KINDS)}")
    return kind


def is_registered(name: str) -> bool:
    """Return whether there is a kind called ``name``."""
    return name in _KINDS


def names() -> tuple[str, ...]:
    """Return the names of all kinds."""
    return tuple(_KINDS)


def kinds() -> tuple[FixKind, ...]:
    """Return all kinds."""
    return tuple(_KINDS.values())
