"""What tensors look like, and what was worked out from it, once for all calls that look the same."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
MOST = 2048
"""How many results are kept; then the oldest goes, which a call that needs it works out again."""

_kept: OrderedDict[Hashable, Any] = OrderedDict()


def signature(tensor: Tensor) -> Hashable:
    """Return shape, strides, dtype and device."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def layout(tensor: Tensor) -> Hashable:
    """Return all that a launch may depend on: the signature, and how the address is aligned."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.data_ptr() % 16


def memoize(key: Hashable, work_out: Callable[[], T]) -> T:
    """Return what ``work_out`` returned for an equal key; None is not kept.

    ``key`` must hold everything that the result depends on, and name what asks. While torch.compile traces, nothing is
    kept; neither is it where sizes are symbols, which cannot be keys.
    """
    if torch.compiler.is_compiling():
        return work_out()
    try:
        found = _kept.get(key)
    except TypeError:
        return work_out()
    if found is None:
        found = work_out()
        if len(_kept) >= MOST:
            _kept.popitem(last=False)
        if found is not None:
            _kept[key] = found
    return found


def clear() -> None:
    """Work everything out anew."""
    _kept.clear()
