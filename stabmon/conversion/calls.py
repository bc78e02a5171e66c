"""Modules whose own code calls a function, directly or through functions of the same package."""

import inspect
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn


def names(module: nn.Module, wanted: str) -> bool:
    """Return whether ``module`` holds the function ``wanted``, or a method of its class names or is given it.

    Methods count up to ``nn.Module``; also what they reach through functions of their package, partials, defaults,
    class attributes, and tables.
    """
    seen: set[int] = set()
    own = [value for name, value in vars(module).items() if not name.startswith("_")]
    if any(_is_or_holds(value, wanted, "", seen) for value in own):
        return True
    for base in type(module).__mro__:
        if base is nn.Module:
            return False
        if any(_is_or_holds(value, wanted, base.__module__, seen) for value in vars(base).values()):
            return True
    return False


def _is_or_holds(value: Any, wanted: str, module: str, seen: set[int]) -> bool:
    """Return whether ``value``, found in code of ``module``, is the function ``wanted`` or leads to it."""
    if isinstance(value, staticmethod | classmethod | MethodType):
        value = value.__func__
    if isinstance(value, FunctionType):
        value = inspect.unwrap(value)
    if isinstance(value, partial):
        return _is_or_holds(value.func, wanted, module, seen)
    if isinstance(value, dict | list | tuple):
        inner = value.values() if isinstance(value, dict) else value
        return len(value) < 100 and any(_is_or_holds(each, wanted, module, seen) for each in inner if callable(each))
    if callable(value) and getattr(value, "__name__", None) == wanted:
        return True
    if not isinstance(value, FunctionType) or id(value) in seen or not _are_of_one_package(value.__module__, module):
        return False
    seen.add(id(value))
    found = set(_names(value.__code__))
    reached = [value.__globals__[name] for name in found if name in value.__globals__]
    reached += [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
    reached += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return wanted in found or any(_is_or_holds(each, wanted, value.__module__, seen) for each in reached)


def _are_of_one_package(first: str, second: str) -> bool:
    return not second or first.partition(".")[0] == second.partition(".")[0]


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
