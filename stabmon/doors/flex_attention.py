"""The door of ``torch.nn.attention.flex_attention``, compiled or not: its modifications are read for sampled rows."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from stabmon.doors.form import scale_of, shown
from stabmon.kernels import observe
from stabmon.kernels.eager.reference import logits
from stabmon.kernels.problem import Problem

NAME = "torch.nn.attention.flex_attention.flex_attention"
_HOMES = (
    ("torch.nn.attention.flex_attention", "flex_attention"),
    ("transformers.integrations.flex_attention", "compile_friendly_flex_attention"),
)


def functions() -> Iterable[Callable[..., Any]]:
    """Return the functions that are wrapped, as far as their modules are loaded."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _HOMES)
    return [function for function in found if callable(function)]


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its calls shown to the observer."""
    return shown(function, _call)


def _call(
    output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor] | None = None,
    block_mask: Any = None,
    scale: float | None = None,
    *_: Any,
    **__: Any,
) -> observe.Call:
    """Return the call in the kernels' form, with the logits of its rows."""
    problem = Problem(query, key, value, scale=scale_of(query, scale))
    mask_mod = None if block_mask is None else block_mask.mask_mod

    def row_logits(rows: Tensor, read: slice) -> Tensor:
        query, key, _ = (part[read].detach() for part in problem[:3])
        z = logits(query.index_select(2, rows), key, problem.scale, None)
        places = _places(z, rows, torch.arange(problem.query.size(0), device=rows.device)[read])
        if score_mod is not None:
            z = score_mod(z, *places).to(z.dtype)
        return z if mask_mod is None else z.masked_fill(~mask_mod(*places), -torch.inf)

    return observe.Call(problem, output, kind="softmax", door=NAME, row_logits=row_logits)


def _places(z: Tensor, rows: Tensor, sequences: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the sequence, head, query and key of each element of z [B, H, R, N_k], broadcastable to it."""
    heads, keys = (torch.arange(z.size(dim), device=z.device) for dim in (1, 3))
    return sequences[:, None, None, None], heads[:, None, None], rows[:, None], keys
