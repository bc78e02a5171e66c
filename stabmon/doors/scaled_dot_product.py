"""The door of ``torch.nn.functional.scaled_dot_product_attention``."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from stabmon.doors.form import beginning_together, scale_of
from stabmon.kernels import observe
from stabmon.kernels.problem import Problem

original = torch._C._nn.scaled_dot_product_attention
NAME = "torch.nn.functional.scaled_dot_product_attention"


class _Conversion:
    """Flag that calls are answered by sigmoid attention, which shows itself; ``stabmon.conversion`` sets it.

    A plain attribute, so that torch.compile reads it as a guarded constant.
    """

    answers: bool = False


conversion = _Conversion()


def functions() -> Iterable[Callable[..., Any]]:
    """Return the functions that are wrapped."""
    return (original,)


def wrapped(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return ``function`` with its calls shown to the observer."""

    @functools.wraps(function)
    def scaled_dot_product_attention(*args: Any, **kwargs: Any) -> Tensor:
        output = function(*args, **kwargs)
        observer = observe.current()
        if observer is not None and not conversion.answers:
            observer.show(_call, output, *args, **kwargs)
        return output

    return scaled_dot_product_attention


def _call(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> observe.Call:
    """Return the call in the kernels' form: [B, H, N, D], queries that end where the keys end."""
    returned = output
    query, key, value, output = (_four(one) for one in (query, key, value, output))
    attn_mask, is_causal = beginning_together(query, key, attn_mask, is_causal)
    problem = Problem(
        query,
        key,
        value,
        scale=scale_of(query, scale),
        is_causal=is_causal,
        attn_mask=None if attn_mask is None else _four(attn_mask),
    )
    return observe.Call(problem, output, kind="softmax", door=NAME, returned=returned)


def _four(x: Tensor) -> Tensor:
    """Return ``x`` [..., N, D] as [B, H, N, D]."""
    if x.dim() == 4:
        return x
    return x.reshape(-1, *x.shape[-3:]) if x.dim() > 4 else x.reshape(*(1,) * (4 - x.dim()), *x.shape)
