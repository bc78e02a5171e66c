"""Statistics of stabmon's own softmax attention over sampled rows, from the queries and keys that it shows."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.kernels.reference import DEAD, logits, sampled_rows, visible_keys


def row_statistics(call: Call, request: AuxRequest) -> Tensor:
    """Return all of the kernel's statistics but the output's, [B, H, 8] float32, with softmax's weights.

    ``call`` is self-attention: queries and keys are as many. Every row that sees a key sums to one.
    """
    rows = sampled_rows(call.query.size(2), request.rows, request.offset, call.query.device)
    with torch.autocast(call.query.device.type, enabled=False):
        z = logits(call.query.index_select(2, rows), call.key, call.scale, call.alibi_slopes, rows)
    stop = None if call.key_lengths is None else call.key_lengths[:, None, None]
    seen = visible_keys(rows, call.key.size(2), call.is_causal, stop=stop)
    valid = torch.ones_like(z, dtype=torch.bool) if seen is None else seen.expand_as(z)
    masked = z.masked_fill(~valid, -torch.inf)
    keys = valid.sum(-1, keepdim=True)
    weights = torch.where(keys > 0, masked.softmax(-1), 0)
    known = z.masked_fill(~valid, 0)
    sums = (
        keys[..., 0] > 0,
        keys[..., 0] > 0,
        known,
        known.square(),
        valid,
        valid & (weights > 0.5),
        valid & (weights * keys < DEAD),
    )
    totals = [part.flatten(2).sum(-1, dtype=z.dtype) for part in sums]
    return torch.stack([*totals, masked.amax((-1, -2))], dim=-1).float()
