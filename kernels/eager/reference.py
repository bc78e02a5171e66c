"""The eager backend and the specification: sigmoid attention and its statistics in plain, differentiable PyTorch.

out[i] = Σ_j w[i, j] v[j],  w[i, j] = sigmoid(scale·q[i]·k[j] + b − slope·|i' − j|) over the row's valid keys,
with i' = i + N_k − N_q (sequences end together). ``visible_keys`` says which keys are valid. A row without a valid key
is 0. Packed sequences are one long sequence whose rows see the keys of their own sequence alone.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..auxiliary import DEAD, OFFSET_STEPS
from ..problem import Problem


class _Rows(NamedTuple):
    """Query rows [R], or [B, R] of packed sequences, and what decides which keys they see.

    positions: i', the place of each row among the keys. first, stop: where the keys of its sequence begin and end, or
    None for all keys. sequence: which sequence it belongs to, or None where that is the batch index.
    mask: the rows of ``Problem.attn_mask``, or None.
    """

    rows: Tensor
    positions: Tensor
    first: Tensor | None
    stop: Tensor | None
    sequence: Tensor | None
    mask: Tensor | None = None


HIDDEN = -8192.0
"""A floating mask hides a pair where it is at most this: -1e4 (in bfloat16 -9984), -1e9, a type's lowest, -inf."""


def shown(mask: Tensor) -> Tensor:
    """Return which pairs a boolean or floating mask leaves, as boolean; NaN hides nothing, so that it is seen."""
    return mask if mask.dtype == torch.bool else ~(mask <= HIDDEN)


def sigmoid_attention(problem: Problem) -> Tensor:
    """Return the attention output [B, H, N_q, D] in the query's type; half types are computed in float32."""
    query, value = problem.query, problem.value
    with _without_autocast(query):
        rows = _rows(problem, None)
        z = _logits(problem, query, rows)
        weights = torch.sigmoid(z + _bias(problem, rows, z))
        valid = _visible(problem, rows)
        if valid is not None:
            weights = weights.masked_fill(~valid, 0.0)
        return (weights @ _for_each_head(value.to(z.dtype), query)).to(query.dtype)


def _without_autocast(query: Tensor) -> AbstractContextManager[object]:
    """Return a block in which nothing is cast; a meta device has no autocast to switch off."""
    return nullcontext() if query.is_meta else torch.autocast(query.device.type, enabled=False)


def logits(
    query: Tensor, key: Tensor, scale: float, alibi_slopes: Tensor | None, positions: Tensor | None = None
) -> Tensor:
    """Return z = scale·q kᵀ − slope·|i' − j|, [B, H, N_q, N_k], before bias and mask, in float32 or wider.

    positions: [N_q] or [B, N_q], key position i' of each query; by default the queries end where the keys end.
    """
    work = torch.promote_types(query.dtype, torch.float32)
    z = (query.to(work) * scale) @ _for_each_head(key.to(work), query).transpose(-1, -2)
    if alibi_slopes is None:
        return z
    columns = torch.arange(key.size(2), device=key.device)
    if positions is None:
        positions = torch.arange(query.size(2), device=key.device) + (key.size(2) - query.size(2))
    distance = (positions[..., None] - columns).abs()
    distance = distance if distance.dim() == 2 else distance[:, None]
    return z - alibi_slopes.detach().to(work)[:, None, None] * distance


def _logits(problem: Problem, query: Tensor, rows: _Rows) -> Tensor:
    """Return z [B, H, R, N_k] of the queries [B, H, R, D] of ``rows``, with what a floating mask adds."""
    z = logits(query, problem.key, problem.scale, problem.alibi_slopes, rows.positions)
    return z if rows.mask is None or rows.mask.dtype == torch.bool else z + rows.mask.to(z.dtype)


def masked_logits(problem: Problem, index: Tensor) -> Tensor:
    """Return z [B, H, R, N_k] of the query rows ``index`` [R], in float32 or wider, -inf where a key is not valid."""
    rows = _rows(problem, index)
    z = _logits(problem, problem.query.index_select(2, index), rows)
    valid = _visible(problem, rows)
    return z if valid is None else z.masked_fill(~valid, -torch.inf)


def visible_keys(
    positions: Tensor,
    keys: int,
    is_causal: bool,
    window: int | None = None,
    first: Tensor | None = None,
    stop: Tensor | None = None,
) -> Tensor | None:
    """Return which of ``keys`` keys each row sees, bool [..., R, N_k], or None when every row sees every key.

    positions: [..., R], i' of each row. Causal: j <= i', and with a window j > i' − window; else |i' − j| < window.
    first, stop: [..., R] or broadcastable, only first <= j < stop are valid.
    """
    columns = torch.arange(keys, device=positions.device)
    ahead = columns - positions[..., None]
    rules = []
    if is_causal:
        rules.append(ahead <= 0)
    if window is not None:
        rules.append(ahead > -window)
        if not is_causal:
            rules.append(ahead < window)
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


def row_statistics(problem: Problem, rows: int, offset: float, sequences: int | None = None) -> Tensor:
    """Return all of ``STATISTICS`` but the output's, [B, H, 8] float32, over ``rows`` query rows a sampled sequence."""
    query = problem.query
    with torch.no_grad(), _without_autocast(query):
        sampled = _sample(problem, rows, offset)
        if sampled.sequence is None:
            query = query.index_select(2, sampled.rows)
        else:
            query = query[0][:, sampled.rows].transpose(0, 1)  # [B, H, R, D] of packed sequences
        z = _logits(problem, query, sampled)
        valid = _visible(problem, sampled)
        valid = torch.ones_like(z, dtype=torch.bool) if valid is None else valid.expand_as(z)
        if sequences is not None and sequences < problem.batch:
            chosen = sampled_rows(problem.batch, sequences, offset, query.device)
            valid = (
                valid
                & (torch.arange(problem.batch, device=query.device)[:, None] == chosen).any(1)[:, None, None, None]
            )
        return _measure(z, z + _bias(problem, sampled, z), valid)


def keys_of_sampled_rows(problem: Problem, rows: int, offset: float) -> Tensor:
    """Return how many keys each sampled row of a padded call sees, [B, H, R] int32, for a call with a mask."""
    query = problem.query
    valid = _visible(problem, _rows(problem, sampled_rows(query.size(2), rows, offset, query.device)))
    counts = cast(Tensor, valid).sum(-1, dtype=torch.int32)
    return counts.expand(query.size(0), query.size(1), min(rows, query.size(2))).contiguous()


def _measure(z: Tensor, shifted: Tensor, valid: Tensor) -> Tensor:
    """Return the columns [B, H, 8] of logits z and z + b over the ``valid`` pairs, all [B, H, R, N_k]."""
    weights = torch.where(valid, torch.sigmoid(shifted), 0)
    return row_columns(z, valid, weights, weights, shifted > 0)


def row_columns(z: Tensor, valid: Tensor, weights: Tensor, mass: Tensor, saturated: Tensor) -> Tensor:
    """Return all of ``STATISTICS`` but the output's, [B, H, 8] float32, of rows whose weights are known.

    z, valid, weights, saturated: [B, H, R, N_k]; saturated says which weights are large, if their pair is valid.
    mass: what adds up to the row mass, [B, H, R] or [B, H, R, N_k].
    """
    keys = valid.sum(-1, keepdim=True)
    known = torch.where(valid, z, 0)
    sums = (
        mass,
        keys[..., 0] > 0,
        known,
        known.square(),
        valid,
        valid & saturated,
        valid & (weights * keys < DEAD),
    )
    totals = [part.flatten(2).sum(-1, dtype=z.dtype) for part in sums]
    largest = torch.where(valid, z, -torch.inf).amax((-1, -2))
    return torch.stack([*totals, largest], dim=-1).float()


def sampled_rows(length: int, rows: int, offset: float, device: torch.device) -> Tensor:
    """Return the sampled query rows, int64 [min(rows, length)], one in each of as many equal strata."""
    count = min(rows, length)
    steps = torch.arange(count, device=device) * OFFSET_STEPS + int(offset * OFFSET_STEPS)
    return steps * length // (count * OFFSET_STEPS)


def output_square_sum(problem: Problem, output: Tensor) -> Tensor:
    """Return Σ out² over each sequence and head dim, [B, H] float32."""
    squares = output.detach().to(torch.promote_types(output.dtype, torch.float32)).square().sum(-1)
    if problem.query_starts is None:
        return squares.sum(-1).float()
    sequence = _sequence(problem.query_starts, torch.arange(output.size(2), device=output.device))
    sums = squares.new_zeros(squares.size(1), problem.batch).index_add(1, sequence, squares[0])
    return sums.T.float()


def _rows(problem: Problem, index: Tensor | None) -> _Rows:
    """Return the query rows ``index`` [R], or all of them."""
    mask = problem.attn_mask
    if index is None:
        index = torch.arange(problem.query.size(2), device=problem.query.device)
    elif mask is not None and mask.size(2) > 1:
        mask = mask.index_select(2, index)
    if problem.query_starts is None or problem.key_starts is None:
        positions = index + (problem.key.size(2) - problem.query.size(2))
        stop = None if problem.key_lengths is None else problem.key_lengths[:, None]
        return _Rows(index, positions, None, stop, None, mask)
    sequence = _sequence(problem.query_starts, index)
    ends = problem.key_starts[1:] - problem.query_starts[1:]
    return _Rows(
        index, index + ends[sequence], problem.key_starts[:-1][sequence], problem.key_starts[1:][sequence], sequence
    )


def _sequence(starts: Tensor, index: Tensor) -> Tensor:
    """Return the sequence [...] that each row of ``index`` belongs to."""
    return torch.searchsorted(starts[1:].to(index.dtype), index, right=True).clamp(max=starts.size(0) - 2)


def _sample(problem: Problem, rows: int, offset: float) -> _Rows:
    """Return the sampled rows: [R], or [B, R] of packed sequences, where those too many see no key."""
    device = problem.query.device
    if problem.query_starts is None or problem.key_starts is None:
        return _rows(problem, sampled_rows(problem.query.size(2), rows, offset, device))
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
    return _Rows(index.clamp(max=problem.query.size(2) - 1), index + ends, first, stop, sequence)


def _visible(problem: Problem, rows: _Rows) -> Tensor | None:
    """Return the valid pairs, [R, N_k] or broadcastable to [B, H, R, N_k], or None for all."""
    valid = visible_keys(rows.positions, problem.key.size(2), problem.is_causal, problem.window, rows.first, rows.stop)
    if valid is not None and valid.dim() == 3:
        valid = valid[:, None]
    if rows.mask is None:
        return valid
    return shown(rows.mask) if valid is None else valid & shown(rows.mask)


def _bias(problem: Problem, rows: _Rows, like: Tensor) -> Tensor | float:
    """Return the bias as it is added to ``like`` [B, H, R, N_k]."""
    bias = problem.bias
    if bias is None:
        return problem.bias_value
    bias = bias.to(like.dtype)
    if bias.dim() == 1:
        return bias[:, None, None]
    if rows.sequence is None:
        return bias[:, :, None, None]
    of_row = bias[:, 0][rows.sequence][..., None]  # [R, 1] or [B, R, 1]
    return of_row if of_row.dim() == 2 else of_row[:, None]


def _for_each_head(tensor: Tensor, query: Tensor) -> Tensor:
    group = query.size(1) // tensor.size(1)
    return tensor if group == 1 else tensor.repeat_interleave(group, dim=1)
