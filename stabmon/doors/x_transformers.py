"""The door of x-transformers: its ``Attend`` module, with softmax or, by ``attn_sigmoid``, sigmoid weights."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.nn import functional

from stabmon.doors.form import four_dimensions, scale_of, shown
from stabmon.kernels import observe
from stabmon.kernels.problem import Problem

NAME = "x_transformers.attend.Attend"
_OTHER = (
    "pre_softmax_talking_heads", "post_softmax_talking_heads", "pre_scale_post_talking_heads", "cope", "selective",
    "softclamp_logits", "l2_distance", "cog_signed", "head_learned_sink", "inverted_attention", "add_zero_kv",
    "sparse_topk",
)  # fmt: skip
"""Options whose weights are of another form."""


def functions() -> Iterable[Callable[..., Any]]:
    """Return the functions that are wrapped: none where the library is not loaded."""
    attend = getattr(sys.modules.get("x_transformers.attend"), "Attend", None)
    return () if attend is None else (attend.forward,)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its calls shown to the observer, and torch's within it not a second time."""
    return shown(function, _call)


def _call(
    output: Tensor,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    prev_attn: Tensor | None = None,
    *_: Any,
    causal: bool | None = None,
    **others: Any,
) -> observe.Call:
    """Return the call in the kernels' form.

    Raises:
        ValueError: the module's weights are of another form than softmax or sigmoid of the logits.
    """
    other = [name for name in _OTHER if getattr(module, name, None)]
    other += [name for name, given in (("prev_attn", prev_attn), *others.items()) if given is not None]
    if other:
        raise ValueError(f"x-transformers' Attend with {', '.join(other)} has weights of a form stabmon does not know")
    if mask is not None and mask.dim() == 2:
        mask = mask[:, None, None]
    bias = four_dimensions(attn_bias)
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, float("-inf"))
    problem = Problem(
        query,
        key,
        value,
        scale=scale_of(query, module.scale),
        is_causal=bool(module.causal if causal is None else causal) and query.size(2) > 1,
        attn_mask=mask,
    )
    sigmoid = getattr(module, "attn_fn", None) is functional.sigmoid
    return observe.Call(problem, output, kind="sigmoid" if sigmoid else "softmax", door=NAME)
