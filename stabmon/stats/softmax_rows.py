"""Statistics of stabmon's own softmax attention over sampled rows, from the queries and keys that it shows."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.kernels.reference import logits, row_columns, sampled_rows, visible_keys


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
    sums_to_one = valid.any(-1)
    weights = torch.where(sums_to_one[..., None], z.masked_fill(~valid, -torch.inf).softmax(-1), 0)
    return row_columns(z, valid, weights, sums_to_one, weights > 0.5)
