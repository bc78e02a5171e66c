"""Modules that call ``sigmoid_attention`` themselves, found in the code objects of their class."""

from collections.abc import Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

from torch import nn

from stabmon.kernels import sigmoid_attention, sigmoid_attention_varlen

_OURS = {"sigmoid_attention": sigmoid_attention, "sigmoid_attention_varlen": sigmoid_attention_varlen}


@cache
def calls_sigmoid_attention(kind: type[nn.Module]) -> bool:
    """Return whether a method of ``kind``, or of its bases up to ``nn.Module``, names one of the kernels' functions.

    A global under any name, a name within an imported module, and a name imported inside the method all count; a call
    from a function outside the class is not seen.
    """
    for base in kind.__mro__:
        if base is nn.Module:
            return False
        if any(_names_it(function) for function in _functions(vars(base).values())):
            return True
    return False


def _functions(members: Any) -> Iterator[FunctionType]:
    for member in members:
        plain = getattr(member, "__func__", member)
        plain = getattr(plain, "__wrapped__", plain)
        if isinstance(plain, FunctionType):
            yield plain


def _names_it(function: FunctionType) -> bool:
    names = set(_names(function.__code__))
    cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    reached = [function.__globals__[name] for name in names if name in function.__globals__] + cells
    if any(value is ours for value in reached for ours in _OURS.values()):
        return True
    modules = [value for value in reached if isinstance(value, ModuleType)]
    return any(
        _imports_it(names) or any(_offers(name, module) for module in modules)
        for name in names & _OURS.keys() - function.__globals__.keys()
    )


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _imports_it(names: set[str]) -> bool:
    return "stabmon.kernels" in names


def _offers(name: str, module: ModuleType) -> bool:
    inner = (module, getattr(module, "kernels", None))
    return any(getattr(namespace, name, None) is _OURS[name] for namespace in inner)


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018 an empty cell raises
    except ValueError:
        return False
    return True
