"""Error messages for a configuration: file, dotted key, expected and given value, and the nearest known key."""

import difflib
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

_LITERAL = "literal_error"


def explain(error: ValidationError, root: type[BaseModel], source: str) -> str:
    """Return a line per wrong key of ``error``, raised by ``root`` on values read from ``source``."""
    wrong: dict[str, list[Any]] = {}
    for detail in error.errors():
        path = _keys(root, detail["loc"])
        wrong.setdefault(".".join(path), []).append(detail)
    return "\n".join(f"{source}: {_line(root, key, details)}" for key, details in wrong.items())


def _keys(root: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Return the keys of ``location`` without what pydantic adds to distinguish the members of a union."""
    keys: list[str] = []
    section: type[BaseModel] | None = root
    for part in location:
        if section is None:
            break
        keys.append(str(part))
        section = _section(section, str(part))
    return keys


def _section(section: type[BaseModel], key: str) -> type[BaseModel] | None:
    field = section.model_fields.get(key)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _owner(root: type[BaseModel], key: str) -> type[BaseModel]:
    section = root
    for part in key.split(".")[:-1]:
        section = _section(section, part) or section
    return section


def _line(root: type[BaseModel], key: str, details: Sequence[Mapping[str, Any]]) -> str:
    first, last = details[0], key.rpartition(".")[2]
    owner = _owner(root, key)
    if first["type"] == "extra_forbidden":
        return _unknown(root, key, owner)
    field = owner.model_fields.get(last)
    about = f" ({field.description})" if field and field.description else ""
    if first["type"] == "missing":
        return f"{key} is missing; add it{about}"
    if first["type"] == "value_error":
        return f"{key or 'the configuration'}: {first['ctx']['error']}"
    value = first["input"]
    expected = " or ".join(dict.fromkeys(_expected(detail) for detail in details))
    guess = _nearest(value, _choices(details)) if isinstance(value, str) else ""
    return f"{key} must be {expected}, got {_short(value)} of type {type(value).__name__}{guess}{about}"


def _unknown(root: type[BaseModel], key: str, owner: type[BaseModel]) -> str:
    section = key.rpartition(".")[0]
    known = [f"{section}.{name}" if section else name for name in owner.model_fields]
    elsewhere = {name.rpartition(".")[2]: name for name in _all_keys(root)}
    exact = elsewhere.get(key.rpartition(".")[2])
    guess = f"; did you mean {exact!r}?" if exact else _nearest(key, known)
    return f"unknown key {key!r}{guess or ';'} known here: {', '.join(known)}"


def _all_keys(section: type[BaseModel], above: str = "") -> list[str]:
    keys: list[str] = []
    for name in section.model_fields:
        inner = _section(section, name)
        keys += _all_keys(inner, f"{above}{name}.") if inner else [above + name]
    return keys


def _nearest(word: str, known: Sequence[str]) -> str:
    """Return ``; did you mean ...?`` for the known word closest to ``word``, or nothing."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def _expected(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "model_type":
        return "a section with keys of its own"
    if detail["type"] == "string_pattern_mismatch":
        return f"text that matches {detail['ctx']['pattern']}"
    return str(detail["msg"]).removeprefix("Input should be ")


def _choices(details: Sequence[Mapping[str, Any]]) -> list[str]:
    listed = [detail["ctx"]["expected"] for detail in details if detail["type"] == _LITERAL]
    return [choice.strip("' ") for text in listed for choice in text.replace(" or ", ",").split(",")]


def _short(value: Any) -> str:
    """Return ``repr`` of ``value``, cut where it is long."""
    text = reprlib.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
