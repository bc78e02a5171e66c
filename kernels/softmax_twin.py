"""A context in which ``sigmoid_attention`` computes softmax of the same logits: what a model would be without sigmoid.

The twin has no bias, which softmax would not see: a learnable one gets no gradient. Scale, mask, lengths, window and
ALiBi are those of the call; a row that sees no key gives 0. Observers see nothing of it.

The switch is a plain attribute like the slot of ``observe``, so a compiled model is compiled again inside the context.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional

from . import visibility
from .auxiliary import AuxRequest
from .problem import Problem


class _Switch:
    on = False


_switch = _Switch()


def active() -> bool:
    """Return whether the context is entered."""
    return _switch.on


@contextmanager
def softmax_in_place() -> Iterator[None]:
    """Let every call of ``sigmoid_attention`` in the block, and its backward pass, be one of softmax attention."""
    before, _switch.on = _switch.on, True
    try:
        yield
    finally:
        _switch.on = before


def attend(problem: Problem, request: AuxRequest | None) -> Tensor:
    """Return softmax attention [B, H, N_q, D] of a checked call, by torch's ``scaled_dot_product_attention``.

    Raises:
        ValueError: statistics were asked for, which are those of sigmoid weights.
    """
    if request is not None:
        raise ValueError("return_aux must be None in softmax_in_place(), got a request: statistics are of sigmoid")
    query, key, value = problem.query, problem.key, problem.value
    scale, grouped = problem.scale, key.size(1) != query.size(1)
    if _is_plain(problem):
        return functional.scaled_dot_product_attention(
            query, key, value, is_causal=problem.is_causal, scale=scale, enable_gqa=grouped
        )
    rows = visibility.rows_of(problem, None)
    valid = visibility.visible(problem, rows)
    added = _added(problem, rows)
    if valid is not None:
        added = added.masked_fill(~valid, -torch.inf)
    output = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=added, scale=scale, enable_gqa=grouped
    )
    return output if valid is None else torch.where(valid.any(-1, keepdim=True), output, 0.0)


def _is_plain(problem: Problem) -> bool:
    """Return whether torch's own causal flag, or nothing, is the whole mask."""
    square = problem.query.size(2) == problem.key.size(2) or not problem.is_causal
    terms = (problem.alibi_slopes, problem.attn_mask, problem.window, problem.key_lengths, problem.query_starts)
    return square and all(term is None for term in terms)


def _added(problem: Problem, rows: visibility.Rows) -> Tensor:
    """Return what ALiBi and a floating mask add to the logits, broadcastable to [B, H, N_q, N_k]."""
    query, slopes = problem.query, problem.alibi_slopes
    columns = torch.arange(problem.key.size(2), device=query.device)
    added = query.new_zeros(query.size(2), problem.key.size(2))
    if slopes is not None:
        distance = (rows.positions[..., None] - columns).abs()
        added = added - (slopes[:, None, None] * distance).to(query.dtype)
    if rows.mask is not None and rows.mask.dtype != torch.bool:
        added = added + rows.mask.to(query.dtype)
    return added
