"""Statistics of softmax attention over sampled rows, from queries, keys and masks as its function was given them."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.eager.reference import masked_logits, row_columns
from stabmon.kernels.observe import Call
from stabmon.kernels.problem import Problem
from stabmon.kernels.visibility import sampled_rows
from stabmon.stats.measured import spread, with_output
from stabmon.stats.slots import Slots
from stabmon.stats.writer import Writer


def add_softmax(writer: Writer, slots: Slots, call: Call, read: slice, request: AuxRequest) -> None:
    """Add one ``call`` of softmax attention: its output whole, the rows ``request`` of the sequences ``read``."""
    batch, _, queries, width = call.output.shape
    part = call.problem.sequences(read)
    columns, sums = _of_call(call, part, read, request)
    statistics = with_output(call.output, columns)
    writer.statistics(slots, statistics, spread(part.query, request), spread(part.key, request))
    writer.softmax(slots, sums)
    writer.counts(slots, batch, queries * width, call.problem.key.size(2))


def _of_call(call: Call, part: Problem, read: slice, request: AuxRequest) -> tuple[Tensor, Tensor]:
    if call.row_logits is None:
        return row_statistics(part, request)
    rows = sampled_rows(part.query.size(2), request.rows, request.offset, part.query.device)
    with torch.autocast(part.query.device.type, enabled=False):
        z = call.row_logits(rows, read)
    return of_logits(z, z > -torch.inf)


def row_statistics(problem: Problem, request: AuxRequest) -> tuple[Tensor, Tensor]:
    """Return the kernel's statistics but the output's, [B, H, 8] float32, and ``row_sums``, of softmax's weights.

    Every row that sees a key sums to one.
    """
    rows = sampled_rows(problem.query.size(2), request.rows, request.offset, problem.query.device)
    with torch.autocast(problem.query.device.type, enabled=False):
        z = masked_logits(problem, rows)
    return of_logits(z, z > -torch.inf)


def of_logits(z: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns [B, H, 8] and ``row_sums`` [H, 2] of logits z [B, H, R, N_k], where ``valid``."""
    sums_to_one = valid.any(-1)
    weights = torch.where(sums_to_one[..., None], z.masked_fill(~valid, -torch.inf).softmax(-1), 0)
    return row_columns(z, valid, weights, sums_to_one, weights > 0.5), row_sums(weights)


def row_sums(weights: Tensor) -> Tensor:
    """Return the sums over rows of entropy and of the largest weight, [H, 2] float32, of weights [B, H, R, N_k]."""
    entropy = torch.special.entr(weights).sum((0, 2, 3))
    return torch.stack([entropy, weights.amax(-1).sum((0, 2))], dim=-1).float()
