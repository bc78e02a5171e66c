"""Parts that doors share: the wrapper of a function, and its arguments in the kernels' form."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stabmon.kernels import observe


def shown(function: Callable[..., Any], made: Callable[..., observe.Call]) -> Callable[..., Any]:
    """Return ``function`` with its calls shown to the observer as ``made`` describes them, and none within it.

    The output is what ``function`` returns, or the first of it.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        observer = observe.swap(None)
        try:
            given = function(*args, **kwargs)
        finally:
            observe.swap(observer)
        if observer is not None:
            observer.show(made, given if isinstance(given, Tensor) else given[0], *args, **kwargs)
        return given

    return wrapper


def scale_of(query: Tensor, scale: float | None) -> float:
    """Return ``scale``, or 1/√D of ``query`` [..., D] where it is None."""
    return 1 / math.sqrt(query.size(-1)) if scale is None else scale


def four_dimensions(mask: Tensor | None) -> Tensor | None:
    """Return a mask of at most four dimensions with sizes of 1 in front of it."""
    return mask if mask is None else mask[(None,) * (4 - mask.dim())]


def beginning_together(
    query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool
) -> tuple[Tensor | None, bool]:
    """Return the mask and the causal flag of a torch call, whose queries [B, H, N_q, D] begin where the keys begin.

    The kernels' end where the keys end: where there are more of one, the causal flag becomes a mask.
    """
    if is_causal and query.size(2) != key.size(2):
        return query.new_ones(query.size(2), key.size(2), dtype=torch.bool).tril(), False
    return attn_mask, is_causal
