"""Statistics of stabmon's own softmax attention over sampled rows, from the queries and keys that it shows."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.eager.reference import logits, row_columns, sampled_rows, visible_keys
from stabmon.kernels.problem import Problem


def row_statistics(problem: Problem, request: AuxRequest) -> Tensor:
    """Return all of the kernel's statistics but the output's, [B, H, 8] float32, with softmax's weights.

    ``problem`` is self-attention: queries and keys are as many. Every row that sees a key sums to one.
    """
    rows = sampled_rows(problem.query.size(2), request.rows, request.offset, problem.query.device)
    with torch.autocast(problem.query.device.type, enabled=False):
        z = logits(problem.query.index_select(2, rows), problem.key, problem.scale, problem.alibi_slopes, rows)
    stop = None if problem.key_lengths is None else problem.key_lengths[:, None, None]
    seen = visible_keys(rows, problem.key.size(2), problem.is_causal, stop=stop)
    valid = torch.ones_like(z, dtype=torch.bool) if seen is None else seen.expand_as(z)
    sums_to_one = valid.any(-1)
    weights = torch.where(sums_to_one[..., None], z.masked_fill(~valid, -torch.inf).softmax(-1), 0)
    return row_columns(z, valid, weights, sums_to_one, weights > 0.5)
