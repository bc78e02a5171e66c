"""The configuration that is kept with a run: numbers, texts, lists and mappings; all other values are kept as text."""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence, Set
from numbers import Integral, Real
from typing import Any

LONGEST = 1000
"""Most characters of a value that is kept as text, and most items of a list or mapping."""
DEEPEST = 20
"""Most levels of lists and mappings."""


def stored(config: object) -> dict[str, Any]:
    """Return ``config``, a mapping, namespace or dataclass, as JSON can hold it; nothing in it makes this fail."""
    plain = {} if config is None else _plain(config, ())
    return plain if isinstance(plain, dict) else {"config": plain}


def _plain(value: Any, around: tuple[int, ...]) -> Any:
    """Return ``value`` as JSON can hold it. around: identities of the lists and mappings that it is in."""
    try:
        return _converted(value, around)
    except Exception:  # an object of the user's may raise from whatever it is asked
        return _text(value)


def _converted(value: Any, around: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if id(value) in around:
        return "(contains itself)"
    if isinstance(value, bytes | bytearray | type) or len(around) >= DEEPEST:
        return _text(value)
    return _parts(value, (*around, id(value)))


def _parts(value: Any, around: tuple[int, ...]) -> Any:
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    elif isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return {_key(key): _plain(part, around) for key, part in list(value.items())[:LONGEST]}
    if isinstance(value, Set):
        return [_plain(part, around) for part in sorted(value, key=_text)[:LONGEST]]
    if isinstance(value, Sequence):
        return [_plain(part, around) for part in value[:LONGEST]]
    return _text(value)


def _key(key: object) -> str:
    return _encodable(key) if isinstance(key, str) else _text(key)


def _text(value: object) -> str:
    try:
        name = getattr(value, "__qualname__", None)
        text = f"{value.__module__}.{name}" if isinstance(name, str) else str(value)
    except Exception:
        text = f"({type(value).__name__} that cannot be printed)"
    return _encodable(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")


def _encodable(text: str) -> str:
    """Return ``text`` with the letters escaped that UTF-8 has no bytes for."""
    return str(text).encode("utf-8", "backslashreplace").decode()
