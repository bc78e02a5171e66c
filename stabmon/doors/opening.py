"""Wrappers in place of other libraries' attention functions, wherever a module or class names them, while one observes.

A wrapper calls the function that it stands for with what it was given, and shows the call to the observer, if there is
one; so a training's numbers are the same bits. torch.compile traces through it.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from stabmon.doors import flash_attention, flex_attention, scaled_dot_product, transformers_eager, x_transformers

_DOORS = (scaled_dot_product, flex_attention, flash_attention, transformers_eager, x_transformers)


class _Replaced(NamedTuple):
    """An attribute of a module or class, what it was, and what it is now."""

    owner: Any
    name: str
    before: Any
    wrapper: Any


_lock = threading.Lock()
_replaced: list[_Replaced] = []
_openings = 0


def open_all() -> None:
    """Put the wrappers in place; each call wants one of ``close_all``."""
    global _openings
    with _lock:
        if _openings == 0:
            try:
                _replace_all()
            except BaseException:
                _put_back()
                raise
        _openings += 1


def count() -> int:
    """Return how many functions there are to be wrapped now; one more where a pass has imported another."""
    return sum(1 for door in _DOORS for _ in door.functions())


def close_all() -> None:
    """Put the functions back when the last who opened closes."""
    global _openings
    with _lock:
        _openings -= 1
        if _openings == 0:
            _put_back()


def _put_back() -> None:
    for one in reversed(_replaced):
        if vars(one.owner).get(one.name) is one.wrapper:
            setattr(one.owner, one.name, one.before)
    _replaced.clear()


def _replace_all() -> None:
    doors = {id(function): (function, door) for door in _DOORS for function in door.functions()}
    wrappers: dict[int, Any] = {}
    for owner, name, value, function in list(_named({key: function for key, (function, _) in doors.items()})):
        if id(value) not in wrappers:
            wrappers[id(value)] = doors[id(function)][1].wrapped(value)
        setattr(owner, name, wrappers[id(value)])
        _replaced.append(_Replaced(owner, name, value, wrappers[id(value)]))


def _named(wanted: dict[int, Callable[..., Any]]) -> Iterator[tuple[Any, str, Any, Callable[..., Any]]]:
    """Yield each attribute of a module that is a function of ``wanted``, or a compiled form of it; methods by class."""
    for function in wanted.values():
        home = _class_of(function)
        if home is not None:
            yield home, function.__name__, function, function
    for module_name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or module_name.startswith(("stabmon.doors", "torch._C")):
            continue
        for name, value in list(vars(module).items()):
            if id(value) in wanted:
                yield module, name, value, wanted[id(value)]
            elif type(value) is FunctionType and id(_compiled_from(value)) in wanted:
                yield module, name, value, wanted[id(_compiled_from(value))]


def _class_of(function: Callable[..., Any]) -> type | None:
    """Return the class that ``function`` is a method of."""
    parts = getattr(function, "__qualname__", "").split(".")
    if len(parts) != 2 or not isinstance(function, FunctionType):
        return None
    home = getattr(sys.modules.get(function.__module__), parts[0], None)
    return home if isinstance(home, type) else None


def _compiled_from(function: FunctionType) -> Any:
    """Return the function that torch.compile made ``function`` of, or None."""
    return vars(function).get("_torchdynamo_orig_callable")
