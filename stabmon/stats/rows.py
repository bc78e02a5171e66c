"""The sampled-row statistics of ``kernels.reference.row_statistics`` in half its time or less, for the CPU.

What it does otherwise: keys are made contiguous before the product, the mask is added and multiplied, not selected,
comparisons write floats in place, and sums run over the batch at once. A logit that is not finite thereby makes the
numbers of its head NaN even where the mask hides it.
"""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.kernels.reference import DEAD, logits, sampled_rows

_INSIDE = (2, 3)


def row_statistics(call: Call, request: AuxRequest) -> Tensor:
    """Return ``kernels.STATISTICS`` but the output's, summed over the batch, [1, H, 8] float32."""
    batch, heads, queries, _ = call.query.shape
    count = call.key.size(2)
    rows = sampled_rows(queries, request.rows, request.offset, call.query.device)
    positions = rows + (count - queries)
    with torch.autocast(call.query.device.type, enabled=False):
        sampled = call.query.index_select(2, rows)
        z = logits(sampled, call.key.contiguous(), call.scale, call.alibi_slopes, positions)  # [B, H, R, N_k]
        keys = (positions + 1).clamp(0, count) if call.is_causal else torch.full_like(positions, count)
        seen = (torch.arange(count, device=z.device) < keys[:, None]).to(z.dtype)
        bias = call.bias.to(z.dtype)[:, None, None] if isinstance(call.bias, Tensor) else call.bias
        shifted = z + (seen.log() + bias)
        largest = (z + seen.log() if call.is_causal else z).amax(_INSIDE).amax(0)
        z = z.mul_(seen)
        weights = shifted.sigmoid()
        mass = weights.sum(_INSIDE)
        below = weights.lt_((DEAD / keys)[:, None].to(z.dtype)).sum(_INSIDE) - (1 - seen).sum()
        per_sample = (
            mass,
            (keys > 0).sum().expand(batch, heads),
            z.sum(_INSIDE),
            torch.linalg.vector_norm(z.flatten(2), dim=-1).square(),
            keys.sum().expand(batch, heads),
            shifted.gt_(0).sum(_INSIDE),
            below,
        )
        totals = [part.sum(0).to(z.dtype) for part in per_sample]
        return torch.stack([*totals, largest], dim=-1).float()[None]
