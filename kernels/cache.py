"""Signatures of tensors, and results that are kept by them: computed once for all calls of one signature."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
MOST = 2048
"""The number of results that are kept; beyond it the oldest is dropped, and computed again when it is needed."""

_kept: OrderedDict[Hashable, Any] = OrderedDict()


def signature(tensor: Tensor) -> Hashable:
    """Return shape, strides, dtype and device."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def layout(tensor: Tensor) -> Hashable:
    """Return all that a launch may depend on: the signature, and how the address is aligned."""
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.data_ptr() % 16


def memoize(key: Hashable, compute: Callable[[], T]) -> T:
    """Return what ``compute`` returned for an equal key; None is not kept.

    ``key`` must hold everything that the result depends on, and name what asks. While torch.compile traces, nothing is
    kept; neither is it where sizes are symbols, which cannot be keys.
    """
    if torch.compiler.is_compiling():
        return compute()
    try:
        found = _kept.get(key)
    except TypeError:
        return compute()
    if found is None:
        found = compute()
        if len(_kept) >= MOST:
            _kept.popitem(last=False)
        if found is not None:
            _kept[key] = found
    return found


def clear() -> None:
    """Drop all results."""
    _kept.clear()
