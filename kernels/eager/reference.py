"""The eager backend and the specification: sigmoid attention and its statistics in plain, differentiable PyTorch.

out[i] = Σ_j w[i, j] v[j],  w[i, j] = sigmoid(scale·q[i]·k[j] + b − slope·|i' − j|) over the row's valid keys,
with i' = i + N_k − N_q (sequences end together). ``visibility`` says which keys are valid; a row without one is 0.
Packed sequences are one long sequence whose rows see the keys of their own sequence alone.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from .. import visibility
from ..auxiliary import DEAD, STATISTICS
from ..problem import Problem


def sigmoid_attention(problem: Problem) -> Tensor:
    """Return the attention output [B, H, N_q, D] in the query's type; half types are computed in float32."""
    problem = problem.read
    query, value = problem.query, problem.value
    with _without_autocast(query):
        rows = visibility.rows_of(problem, None)
        z = _logits(problem, query, rows)
        weights = torch.sigmoid(z + _bias(problem, rows, z))
        valid = visibility.visible(problem, rows)
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
    return z - alibi_slopes.detach().to(work)[..., None, None] * distance


def _logits(problem: Problem, query: Tensor, rows: visibility.Rows) -> Tensor:
    """Return z [B, H, R, N_k] of the queries [B, H, R, D] of ``rows``, with what a floating mask adds."""
    z = logits(query, problem.key, problem.scale, problem.alibi_slopes, rows.positions)
    return z if rows.mask is None or rows.mask.dtype == torch.bool else z + rows.mask.to(z.dtype)


def masked_logits(problem: Problem, index: Tensor) -> Tensor:
    """Return z [B, H, R, N_k] of the query rows ``index`` [R], in float32 or wider, -inf where a key is not valid."""
    problem = problem.read
    rows = visibility.rows_of(problem, index)
    z = _logits(problem, problem.query.index_select(2, index), rows)
    valid = visibility.visible(problem, rows)
    return z if valid is None else z.masked_fill(~valid, -torch.inf)


def row_statistics(problem: Problem, rows: int, offset: float, sequences: int | None = None) -> Tensor:
    """Return all of ``STATISTICS`` but the output's, [B, H, 8] float32, over ``rows`` query rows a sampled sequence."""
    problem = problem.read
    query = problem.query
    with torch.no_grad(), _without_autocast(query):
        sampled = visibility.sample(problem, rows, offset)
        if sampled.sequence is None:
            query = query.index_select(2, sampled.rows)
        else:
            query = query[0][:, sampled.rows].transpose(0, 1)  # [B, H, R, D] of packed sequences
        z = _logits(problem, query, sampled)
        valid = visibility.visible(problem, sampled)
        valid = torch.ones_like(z, dtype=torch.bool) if valid is None else valid.expand_as(z)
        if sequences is not None and sequences < problem.batch:
            chosen = visibility.sampled_rows(problem.batch, sequences, offset, query.device)
            valid = (
                valid
                & (torch.arange(problem.batch, device=query.device)[:, None] == chosen).any(1)[:, None, None, None]
            )
        return _measure(z, z + _bias(problem, sampled, z), valid)


def statistics(problem: Problem, sums: Tensor, rows: int, offset: float, sequences: int | None = None) -> Tensor:
    """Return ``STATISTICS`` [B, H, 9] float32, given Σ out² ``sums`` [B, H]; without ``rows`` only these."""
    if rows == 0:
        rest = sums.new_zeros(*sums.shape, len(STATISTICS) - 1)
        rest[..., -1] = -torch.inf
    else:
        rest = row_statistics(problem, rows, offset, sequences)
    return torch.cat([sums[..., None], rest], dim=-1)


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


def output_square_sum(problem: Problem, output: Tensor) -> Tensor:
    """Return Σ out² over each sequence and head dim, [B, H] float32."""
    squares = output.detach().to(torch.promote_types(output.dtype, torch.float32)).square().sum(-1)
    if problem.query_starts is None:
        return squares.sum(-1).float()
    sequence = visibility.sequence_of(problem.query_starts, torch.arange(output.size(2), device=output.device))
    sums = squares.new_zeros(squares.size(1), problem.batch).index_add(1, sequence, squares[0])
    return sums.T.float()


def _bias(problem: Problem, rows: visibility.Rows, like: Tensor) -> Tensor | float:
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
