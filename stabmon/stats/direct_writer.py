"""The writer of graphs, which replay device work and no Python: measures are added to the device buffer at once."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.stats.measured import set_bias, set_gain, spread, square_norm, wide, with_output
from stabmon.stats.rows import row_statistics
from stabmon.stats.slots import Slots


class DirectWriter:
    """Writes to ``buffer`` [plan.width] with device operations alone: no synchronisation, nothing that grows as n²."""

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer

    def power(self, at: slice, x: Tensor) -> None:
        """Add the sum of squares of ``x`` and its number of elements to the pair ``at``."""
        norm = torch.linalg.vector_norm(x, dtype=wide(x))
        self.buffer[at.start].addcmul_(norm, norm)
        self.buffer[at.start + 1].add_(x.numel())

    def gain(self, at: slice, gain: Tensor) -> None:
        """Set the mean absolute value of a LayerScale's ``gain``."""
        set_gain(self.buffer, at, gain)

    def call(self, slots: Slots, call: Call, read: slice, request: AuxRequest) -> None:
        """Add one call of ``sigmoid_attention``; without the kernel's statistics, the rows ``request`` of ``read``."""
        query, key = call.problem.query[read], call.problem.key[read]
        if call.aux is not None:
            statistics = call.aux.statistics
        else:
            statistics = with_output(call.output, row_statistics(call.problem.sequences(read), request))
        set_bias(self.buffer, slots, call.problem.any_bias)
        self.statistics(slots, statistics, spread(query, request), spread(key, request))
        self.counts(slots, call.problem.query.size(0), call.output[0, 0].numel(), call.problem.n_k)

    def statistics(self, slots: Slots, statistics: Tensor, query: Tensor, key: Tensor) -> None:
        """Add the kernel's ``statistics`` [B, H, 9] and the norms of ``query`` and ``key``, tokens [B, H, N, D]."""
        self.buffer[slots["statistics"]].view(slots.heads, -1).add_(statistics[..., :-1].sum(0))
        largest = self.buffer[slots["logit_max"]]
        largest.copy_(torch.maximum(largest, statistics[..., -1].amax(0)))
        self.buffer[slots["query_squares"]].add_(square_norm(query, slots.heads))
        self.buffer[slots["key_squares"]].add_(square_norm(key, slots.heads))
        self.buffer[slots["counts"].start + 2].add_(query.size(0) * query.size(2))
        self.buffer[slots["counts"].start + 3].add_(key.size(0) * key.size(2))

    def counts(self, slots: Slots, samples: int, elements: int, keys: int) -> None:
        """Count ``samples`` sequences with ``elements`` output elements a head each, over ``keys`` keys."""
        self.buffer[slots["counts"].start].add_(samples)
        self.buffer[slots["counts"].start + 1].add_(samples * elements)
        self.buffer[slots["keys"]].clamp_(min=keys)

    def softmax(self, slots: Slots, sums: Tensor) -> None:
        """Add the sums over rows of entropy and largest weight, [H, 2], of a call of softmax attention."""
        self.buffer[slots["softmax"]].view(slots.heads, 2).add_(sums)
