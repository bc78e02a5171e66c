"""The eager backend and the specification: sigmoid attention and its statistics in plain, differentiable PyTorch.

out[i] = Σ_j w[i, j] v[j],  w[i, j] = sigmoid(scale·q[i]·k[j] + b − slope·|i' − j|) over the row's valid keys,
with i' = i + N_k − N_q (sequences end together) and, if causal, j <= i'. A row without a valid key is 0.
"""

import torch
from torch import Tensor

from .auxiliary import OFFSET_STEPS

DEAD = 0.01
"""A weight below DEAD / n is dead: a hundredth of what a row of n equal weights that sums to one would have."""


def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | float,
    scale: float,
    is_causal: bool,
    alibi_slopes: Tensor | None,
) -> Tensor:
    """Return the attention output [B, H, N_q, D] in the query's type; half types are computed in float32.

    query: [B, H, N_q, D]. key, value: [B, H_k, N_k, D], H a multiple of H_k. bias: a number or [H]. alibi_slopes: [H].
    """
    with torch.autocast(query.device.type, enabled=False):
        z = logits(query, key, scale, alibi_slopes)
        weights = torch.sigmoid(z + _over_heads(bias, z))
        if is_causal:
            weights = weights.tril(key.size(2) - query.size(2))
        return (weights @ _for_each_head(value.to(z.dtype), query)).to(query.dtype)


def logits(
    query: Tensor, key: Tensor, scale: float, alibi_slopes: Tensor | None, positions: Tensor | None = None
) -> Tensor:
    """Return z = scale·q kᵀ − slope·|i' − j|, [B, H, N_q, N_k], before bias and mask, in float32 or wider.

    positions: [N_q] key position i' of each query; by default the queries end where the keys end.
    """
    work = torch.promote_types(query.dtype, torch.float32)
    z = (query.to(work) * scale) @ _for_each_head(key.to(work), query).transpose(-1, -2)
    if alibi_slopes is None:
        return z
    columns = torch.arange(key.size(2), device=key.device)
    if positions is None:
        positions = torch.arange(query.size(2), device=key.device) + (key.size(2) - query.size(2))
    return z - alibi_slopes.detach().to(work)[:, None, None] * (positions[:, None] - columns).abs()


def row_statistics(
    query: Tensor,
    key: Tensor,
    bias: Tensor | float,
    scale: float,
    is_causal: bool,
    alibi_slopes: Tensor | None,
    rows: int,
    offset: float,
) -> Tensor:
    """Return all of ``STATISTICS`` but the output's, [B, H, 8] float32, over ``rows`` sampled query rows."""
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):
        sampled = sampled_rows(query.size(2), rows, offset, query.device)
        positions = sampled + (key.size(2) - query.size(2))
        z = logits(query.index_select(2, sampled), key, scale, alibi_slopes, positions)
        valid = torch.ones_like(z, dtype=torch.bool)
        if is_causal:
            valid = valid & (torch.arange(key.size(2), device=z.device) <= positions[:, None])
        shifted = z + _over_heads(bias, z)
        weights = torch.where(valid, torch.sigmoid(shifted), 0)
        keys = valid.sum(-1, keepdim=True)
        known = torch.where(valid, z, 0)
        sums = (
            weights,
            keys[..., 0] > 0,
            known,
            known.square(),
            valid,
            valid & (shifted > 0),
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


def output_square_sum(output: Tensor) -> Tensor:
    """Return Σ out² over sequence and head dim, [B, H] float32."""
    return output.detach().to(torch.promote_types(output.dtype, torch.float32)).square().sum((-1, -2)).float()


def _over_heads(bias: Tensor | float, like: Tensor) -> Tensor | float:
    return bias.to(like.dtype)[:, None, None] if isinstance(bias, Tensor) else bias


def _for_each_head(tensor: Tensor, query: Tensor) -> Tensor:
    group = query.size(1) // tensor.size(1)
    return tensor if group == 1 else tensor.repeat_interleave(group, dim=1)
