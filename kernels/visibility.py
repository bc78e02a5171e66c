"""Visibility, the specification: which keys a row of queries sees, and which rows statistics sample.

Eager computes with it; the kernels compute the same from the numbers, and read what this counts for a mask.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor

from .auxiliary import OFFSET_STEPS
from .problem import Problem

HIDDEN = -8192.0
"""A floating mask hides a pair where it is at most this: -1e4 (in bfloat16 -9984), -1e9, a type's lowest, -inf."""


def shown(mask: Tensor) -> Tensor:
    """Return which pairs a boolean or floating mask leaves, as boolean; NaN hides nothing, so that it is seen."""
    return mask if mask.dtype == torch.bool else ~(mask <= HIDDEN)


class Rows(NamedTuple):
    """Query rows [R], or [B, R] of packed sequences, and what decides which keys they see.

    positions: i', the place of each row among the keys; [B, R] where each sequence has its own. first, stop: where the
    keys of its sequence begin and end, or None for all keys. sequence: which sequence it belongs to, or None where that
    is the batch index.
    mask: the rows of ``Problem.attn_mask``, or None.
    """

    rows: Tensor
    positions: Tensor
    first: Tensor | None
    stop: Tensor | None
    sequence: Tensor | None
    mask: Tensor | None = None


def visible_keys(
    positions: Tensor,
    keys: int,
    is_causal: bool,
    window: int | None = None,
    first: Tensor | None = None,
    stop: Tensor | None = None,
    ahead: int | None = None,
) -> Tensor | None:
    """Return which of ``keys`` keys each row sees, bool [..., R, N_k], or None when every row sees every key.

    positions: [..., R], i' of each row. Causal: j <= i', and with a window j > i' − window; else also j < i' + ahead.
    ahead: None for ``window``. first, stop: [..., R] or broadcastable, only first <= j < stop are valid.
    """
    columns = torch.arange(keys, device=positions.device)
    distance = columns - positions[..., None]
    rules = []
    if is_causal:
        rules.append(distance <= 0)
    if window is not None:
        rules.append(distance > -window)
        if not is_causal:
            rules.append(distance < (window if ahead is None else ahead))
    if first is not None:
        rules.append(columns >= first[..., None])
    if stop is not None:
        rules.append(columns < stop[..., None])
    if not rules:
        return None
    valid = rules[0]
    for rule in rules[1:]:
        valid = valid & rule
    return valid


def sampled_rows(length: int, rows: int, offset: float, device: torch.device) -> Tensor:
    """Return the sampled query rows, int64 [min(rows, length)], one in each of as many equal strata."""
    count = min(rows, length)
    steps = torch.arange(count, device=device) * OFFSET_STEPS + int(offset * OFFSET_STEPS)
    return steps * length // (count * OFFSET_STEPS)


def keys_of_sampled_rows(problem: Problem, rows: int, offset: float) -> Tensor:
    """Return how many keys each sampled row of a padded call sees, [B, H, R] int32, for a call with a mask."""
    query = problem.query
    valid = visible(problem, rows_of(problem, sampled_rows(query.size(2), rows, offset, query.device)))
    counts = cast(Tensor, valid).sum(-1, dtype=torch.int32)
    return counts.expand(query.size(0), query.size(1), min(rows, query.size(2))).contiguous()


def rows_of(problem: Problem, index: Tensor | None) -> Rows:
    """Return the query rows ``index`` [R], or all of them."""
    mask = problem.attn_mask
    if index is None:
        index = torch.arange(problem.query.size(2), device=problem.query.device)
    elif mask is not None and mask.size(2) > 1:
        mask = mask.index_select(2, index)
    if problem.query_starts is None or problem.key_starts is None:
        lengths = problem.key_lengths
        stop = None if lengths is None else lengths[:, None]
        end = stop.clamp(0, problem.n_k) if problem.cached and stop is not None else problem.n_k
        positions = index + (end - problem.query.size(2))
        return Rows(index, positions, None, stop, None, mask)
    sequence = sequence_of(problem.query_starts, index)
    starts, ends = problem.query_starts, problem.key_starts[1:] - problem.query_starts[1:]
    outside = (index < starts[0]) | (index >= starts[-1])  # of all sequences
    stop = problem.key_starts[1:][sequence].masked_fill(outside, 0)
    return Rows(index, index + ends[sequence], problem.key_starts[:-1][sequence], stop, sequence)


def sequence_of(starts: Tensor, index: Tensor) -> Tensor:
    """Return the sequence [...] that each row of ``index`` belongs to."""
    return torch.searchsorted(starts[1:].to(index.dtype), index, right=True).clamp(max=starts.size(0) - 2)


def sample(problem: Problem, rows: int, offset: float) -> Rows:
    """Return the sampled rows: [R], or [B, R] of packed sequences, where those too many see no key."""
    device = problem.query.device
    if problem.query_starts is None or problem.key_starts is None:
        return rows_of(problem, sampled_rows(problem.query.size(2), rows, offset, device))
    starts = problem.query_starts.to(torch.int64)
    lengths = (starts[1:] - starts[:-1])[:, None]
    counts = lengths.clamp(max=rows)
    number = torch.arange(min(rows, problem.max_q), device=device)
    steps = number * OFFSET_STEPS + int(offset * OFFSET_STEPS)
    index = starts[:-1, None] + steps * lengths // (counts * OFFSET_STEPS).clamp(min=1)
    sequence = torch.arange(problem.batch, device=device)[:, None].expand_as(index)
    ends = (problem.key_starts - problem.query_starts)[1:, None]
    first, stop = (edge[:, None].expand_as(index) for edge in (problem.key_starts[:-1], problem.key_starts[1:]))
    stop = torch.where(number < counts, stop, 0)
    return Rows(index.clamp(max=problem.query.size(2) - 1), index + ends, first, stop, sequence)


def visible(problem: Problem, rows: Rows) -> Tensor | None:
    """Return the valid pairs, [R, N_k] or broadcastable to [B, H, R, N_k], or None for all."""
    valid = visible_keys(
        rows.positions, problem.key.size(2), problem.is_causal, problem.window, rows.first, rows.stop, problem.ahead
    )
    if valid is not None and valid.dim() == 3:
        valid = valid[:, None]
    if rows.mask is None:
        return valid
    return shown(rows.mask) if valid is None else valid & shown(rows.mask)
