"""The door of x-transformers: its ``Attend`` module, with softmax or, by ``attn_sigmoid``, sigmoid weights."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from stabmon.doors.form import four_dimensions, scale_of, shown
from stabmon.kernels import observe
from stabmon.kernels.problem import Problem

NAME = "x_transformers.attend.Attend"
_OTHER = (
    "pre_softmax_talking_heads", "post_softmax_talking_heads", "pre_scale_post_talking_heads", "cope", "selective",
    "softclamp_logits", "l2_distance", "cog_signed", "head_learned_sink", "inverted_attention", "add_zero_kv",
)  # fmt: skip
"""Options whose weights are of another form."""
Kind = Literal["softmax", "sigmoid"]


def functions() -> Iterable[Callable[..., Any]]:
    """Return the functions that are wrapped: none where the library is not loaded."""
    attend = getattr(sys.modules.get("x_transformers.attend"), "Attend", None)
    return () if attend is None else (attend.forward,)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its calls shown to the observer, and torch's within it not a second time."""
    return shown(function, _call)


def kind_of(module: Any) -> Kind:
    """Return what makes weights of the logits in an ``Attend``.

    Raises:
        ValueError: its weights are of another form than softmax or sigmoid of the logits.
    """
    other = [name for name in _OTHER if getattr(module, name, None)]
    function = module.attn_fn
    while isinstance(function, partial):
        function = function.func
    if function not in (functional.sigmoid, functional.softmax):
        other.append(f"the weights of {getattr(function, '__name__', type(function).__name__)}")
    if other:
        raise ValueError(_unknown(other))
    return "sigmoid" if function is functional.sigmoid else "softmax"


def problem_of(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    prev_attn: Tensor | None = None,
    attn_delta: Tensor | None = None,
    row_mask: Tensor | None = None,
    flash_pack_seq_kwargs: Any = None,
    causal: bool | None = None,
) -> Problem:
    """Return the call of an ``Attend``'s forward in the kernels' form; ``row_mask`` is only for inverted attention.

    Raises:
        ValueError: the weights depend on other weights, or the sequences are packed.
    """
    others = {"prev_attn": prev_attn, "attn_delta": attn_delta, "flash_pack_seq_kwargs": flash_pack_seq_kwargs}
    given = [name for name, one in others.items() if one is not None]
    if given:
        raise ValueError(_unknown(given))
    if mask is not None and mask.dim() == 2:
        mask = mask[:, None, None]
    bias = four_dimensions(attn_bias)
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    if 1 < key.size(1) < query.size(1):  # its query head h reads key head h modulo their number
        key, value = (part.repeat(1, query.size(1) // part.size(1), 1, 1) for part in (key, value))
    return Problem(
        query,
        key,
        value,
        scale=scale_of(query, module.scale),
        is_causal=bool(module.causal if causal is None else causal) and query.size(2) > 1,
        attn_mask=mask,
    )


def _call(output: Tensor, module: Any, *args: Any, **kwargs: Any) -> observe.Call:
    kind = kind_of(module)
    return observe.Call(problem_of(module, *args, **kwargs), output, kind=kind, door=NAME)


def _unknown(options: list[str]) -> str:
    return f"x-transformers' Attend with {', '.join(options)} has weights of a form stabmon does not know"
