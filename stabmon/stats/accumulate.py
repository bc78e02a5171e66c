"""What hooks add to the device buffer: few operations, no synchronisation, nothing that grows with n²."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.stats.rows import row_statistics
from stabmon.stats.slots import Slots


def add_call(buffer: Tensor, slots: Slots, call: Call, read: slice, request: AuxRequest) -> None:
    """Add one call of ``sigmoid_attention`` to its site's slots; of the sequences ``read``, the rows of ``request``.

    Statistics that the kernel did not compute (``call.aux`` is None) are computed here, so that their time is ours.
    """
    part = call._replace(query=call.query[read], key=call.key[read])
    if call.aux is not None:
        statistics = call.aux.statistics
    else:
        statistics = _with_output(call.output, row_statistics(part, request))
    _set(buffer, slots.bias, call.bias)
    add_statistics(buffer, slots, statistics, part.query, part.key, request.rows)
    add_counts(buffer, slots, call.query.size(0), call.output[0, 0].numel(), call.key.size(2))


def add_statistics(buffer: Tensor, slots: Slots, statistics: Tensor, query: Tensor, key: Tensor, rows: int) -> None:
    """Add the kernel's ``statistics`` [B, H, 9], and the norms of ``rows`` evenly spaced tokens of each sequence.

    query: [B, H, N_q, D]. key: [B, H_k, N_k, D]; a key head that several query heads share counts for each of them.
    """
    queries, keys = _spread(query, rows), _spread(key, rows)
    squares = [_squares_per_head(queries), _squares_per_head(keys)]
    if key.size(1) != query.size(1):
        squares[1] = squares[1].repeat_interleave(query.size(1) // key.size(1))
    sums = torch.cat([statistics[..., :-1].sum(0), torch.stack(squares, dim=-1)], dim=-1)
    buffer[slots.sums].add_(sums.flatten())
    largest = buffer[slots.logit_max]
    largest.copy_(torch.maximum(largest, statistics[..., -1].amax(0)))
    buffer[slots.counts.start + 2].add_(queries.size(0) * queries.size(2))
    buffer[slots.counts.start + 3].add_(keys.size(0) * keys.size(2))


def add_counts(buffer: Tensor, slots: Slots, samples: int, elements: int, keys: int) -> None:
    """Count ``samples`` sequences with ``elements`` output elements a head each, over ``keys`` keys."""
    buffer[slots.counts.start].add_(samples)
    buffer[slots.counts.start + 1].add_(samples * elements)
    buffer[slots.keys].clamp_(min=keys)


def add_power(buffer: Tensor, at: slice, x: Tensor) -> None:
    """Add the sum of squares of ``x`` and its number of elements to the pair ``at``."""
    norm = torch.linalg.vector_norm(x, dtype=_wide(x))
    buffer[at.start].addcmul_(norm, norm)
    buffer[at.start + 1].add_(x.numel())


def set_gain(buffer: Tensor, at: slice, gain: Tensor) -> None:
    """Set the mean absolute value of a LayerScale's ``gain``."""
    buffer[at.start].copy_(gain.detach().abs().mean())


def _set(buffer: Tensor, at: slice, value: Tensor | float) -> None:
    if isinstance(value, Tensor):
        buffer[at].copy_(value.detach())
    else:
        buffer[at].fill_(value)


def _with_output(output: Tensor, rest: Tensor) -> Tensor:
    """Put the output's sum of squares per sequence and head before the ``rest``, both summed over the batch."""
    squares = torch.linalg.vector_norm(output.flatten(2), dim=-1, dtype=_wide(output)).square_().sum(0)
    return torch.cat([squares[:, None].to(rest.dtype), rest[..., :-1].sum(0), rest[..., -1].amax(0)[:, None]], dim=-1)[
        None
    ]


def _squares_per_head(x: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vector_norm(x, dim=(0, 2, 3), dtype=_wide(x)).square()
    return squares.float()


def _spread(x: Tensor, rows: int) -> Tensor:
    """Return every k-th token of ``x`` [B, H, N, D], at least ``rows`` of them where there are as many."""
    step = max(1, x.size(2) // rows)
    return x[:, :, step // 2 :: step]


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
