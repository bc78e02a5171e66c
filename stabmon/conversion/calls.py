"""Classes of modules whose own code calls a function, directly or through functions of the same package."""

from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn


def names(kind: type[nn.Module], wanted: str) -> bool:
    """Return whether a method of ``kind``, or of its bases up to ``nn.Module``, names the function ``wanted``."""
    for base in kind.__mro__:
        if base is nn.Module:
            return False
        if any(_reaches(function, wanted, set()) for function in _functions(vars(base).values())):
            return True
    return False


def _functions(members: Any) -> Iterator[FunctionType]:
    for member in members:
        plain = getattr(member, "__func__", member)
        plain = getattr(plain, "__wrapped__", plain)
        if isinstance(plain, FunctionType):
            yield plain


def _reaches(function: FunctionType, wanted: str, seen: set[FunctionType]) -> bool:
    seen.add(function)
    found = set(_names(function.__code__))
    if wanted in found:
        return True
    package = function.__module__.partition(".")[0]
    reached = [function.__globals__[name] for name in found if name in function.__globals__]
    reached += [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    for value in reached:
        if getattr(value, "__name__", None) == wanted:
            return True  # imported under another name
        same = isinstance(value, FunctionType) and value not in seen and value.__module__.partition(".")[0] == package
        if same and _reaches(value, wanted, seen):
            return True
    return False


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 an empty cell raises
    except ValueError:
        return False
    return True
