"""The writer of plain steps: measures of a pass are deferred, and added to the buffer for all layers together.

A launch costs more than the few numbers it moves, on a GPU as on a CPU. So a hook takes one norm, or one copy of
sampled rows, and ``add_deferred`` does the rest for all layers at once: when a module is called again before the step
ends, and at its end. What shapes decide is counted on the host.
"""

import weakref
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.stats.fixed_biases import FixedBiases
from stabmon.stats.measured import (
    output_squares,
    set_bias,
    set_gain,
    spread,
    square_norm,
    wide,
    with_output,
    with_squares,
)
from stabmon.stats.plan import Plan
from stabmon.stats.rows import Rows, join, measure, plain, row_statistics, take
from stabmon.stats.slots import Slots


class _Measured(NamedTuple):
    """A call whose statistics are known: the kernel's [B, H, 9]."""

    slots: Slots
    statistics: Tensor

    @property
    def kind(self) -> object:
        return self.statistics.size(0)


class _Sampled(NamedTuple):
    """A call whose ``rows`` are still to be measured; squares: Σ out² [B, H]."""

    slots: Slots
    rows: Rows
    squares: Tensor

    @property
    def kind(self) -> object:
        return self.squares.size(0), *self.rows.kind


_Pending = TypeVar("_Pending", _Measured, _Sampled)


class DeferredWriter:
    """Notes what hooks measure and brings it to ``buffer`` [plan.width] with few operations.

    It does what ``DirectWriter`` does, later. Between two of its calls each slot is written once.
    """

    def __init__(self, plan: Plan, buffer: Tensor) -> None:
        self.buffer = buffer
        self._sums, self._maxima = plan.sums, plan.maxima
        self._norms = torch.zeros_like(buffer[plan.sums])
        """Square roots of what is to be added; of sums alone, since arithmetic on a GPU loses the bits of MISSING."""
        self._views: dict[int, Tensor] = {}
        self._taken: set[int] = set()
        self._measured: list[_Measured] = []
        self._sampled: list[_Sampled] = []
        self._stream: tuple[weakref.ref[Tensor], int, int] | None = None
        """The tensor whose norm was taken last, its version, and where the norm is."""
        self._same: list[tuple[int, int]] = []
        """Norms that are others' again: where each is, and the other."""
        self._same_at: dict[tuple[tuple[int, int], ...], Tensor] = {}
        self._biases = FixedBiases()
        self._start = plan.initial[: plan.maxima.stop].copy()
        self._counts = self._start.copy()
        self._counted: tuple[bytes, Tensor] = (b"", buffer[:0])

    def power(self, slots: Slots, name: str, x: Tensor) -> None:
        """Note the sum of squares of ``x`` and its number of elements for the pair ``name``."""
        at = slots[name]
        self._take(at.start)
        self._counts[at.start + 1] += x.numel()
        norm, last = self._norm(at.start), self._stream
        version = -1 if x.is_inference() else x._version
        if last is not None and last[0]() is x and last[1] == version >= 0:
            self._same.append((at.start, last[2]))  # a block's input is the output of the block before it
            return
        elif self._direct(x):
            torch.linalg.vector_norm(x, dtype=torch.float32, out=norm)
        else:
            norm.copy_(torch.linalg.vector_norm(x, dtype=wide(x)))
        self._stream = (weakref.ref(x), version, at.start)

    def gain(self, slots: Slots, gain: Tensor) -> None:
        """Set the mean absolute value of a LayerScale's ``gain``."""
        set_gain(self.buffer[slots["layer_scale"]], gain)

    def call(self, slots: Slots, call: Call, read: slice, request: AuxRequest) -> None:
        """Note one call of ``sigmoid_attention``; without the kernel's statistics, the rows ``request`` of ``read``."""
        self._take(slots["statistics"].start)
        if call.aux is None or not self._biases.note(slots["bias"], call.problem.any_bias):
            set_bias(self.buffer[slots["bias"]], call.problem.any_bias)
        if call.aux is not None:
            query, key = spread(call.problem.query, request), spread(call.problem.key, request)
            self._statistics(slots, call.aux.statistics, query, key)
        else:
            self._rows(slots, call, read, request)
        self.counts(slots, call.problem.query.size(0), call.output[0, 0].numel(), call.problem.n_k)

    def statistics(self, slots: Slots, statistics: Tensor, query: Tensor, key: Tensor) -> None:
        """Note the kernel's ``statistics`` [B, H, 9] and the norms of ``query`` and ``key``, tokens [B, H, N, D]."""
        self._take(slots["statistics"].start)
        self._statistics(slots, statistics, query, key)

    def counts(self, slots: Slots, samples: int, elements: int, keys: int) -> None:
        """Count ``samples`` sequences with ``elements`` output elements a head each, over ``keys`` keys."""
        self._counts[slots["counts"].start] += samples
        self._counts[slots["counts"].start + 1] += samples * elements
        self._counts[slots["keys"].start] = max(self._counts[slots["keys"].start], keys)

    def softmax(self, slots: Slots, sums: Tensor) -> None:
        """Add the sums over rows of entropy and largest weight, [H, 2], of a call of softmax attention."""
        self.buffer[slots["softmax"]].view(slots.heads, 2).add_(sums)

    def add_deferred(self) -> None:
        """Add what was noted to the buffer."""
        self._biases.write(self.buffer)
        if self._same:
            to, source = self._elements(tuple(self._same))
            self._norms.index_copy_(0, to, self._norms.index_select(0, source))
        if self._taken:
            self.buffer[self._sums].addcmul_(self._norms, self._norms)
            self._norms.zero_()
        for measured in _runs(self._measured):
            self._add(measured, torch.cat([call.statistics for call in measured], dim=1))
        for sampled in _runs(self._sampled):
            self._add_rows(sampled)
        self._taken.clear()
        self._same.clear()
        self._measured.clear()
        self._sampled.clear()
        self._stream = None

    def flush(self) -> None:
        """Add everything to the buffer, what was counted too: it is whole now."""
        self.add_deferred()
        counts = self._counts.tobytes()
        if counts != self._counted[0]:
            self._counted = (counts, torch.tensor(self._counts, device=self.buffer.device))
        counted, sums, maxima = self._counted[1], self.buffer[self._sums], self.buffer[self._maxima]
        sums.add_(counted[self._sums])
        torch.maximum(maxima, counted[self._maxima], out=maxima)
        np.copyto(self._counts, self._start)

    def _direct(self, x: Tensor) -> bool:
        """Return whether a norm of ``x`` can be written to its place: one launch instead of two."""
        return x.dtype != torch.float64 and x.device == self.buffer.device

    def _take(self, start: int) -> None:
        if start in self._taken:
            self.add_deferred()
        self._taken.add(start)

    def _statistics(self, slots: Slots, statistics: Tensor, query: Tensor, key: Tensor) -> None:
        self._measured.append(_Measured(slots, statistics.to(self.buffer.device, non_blocking=True)))
        for at, tokens, count in ((slots["query_squares"], query, 2), (slots["key_squares"], key, 3)):
            norm = self._norms[at]
            if tokens.size(1) == slots.heads and self._direct(tokens):
                torch.linalg.vector_norm(tokens, dim=(0, 2, 3), dtype=torch.float32, out=norm)
            else:
                norm.copy_(square_norm(tokens, slots.heads).sqrt_())
            self._counts[slots["counts"].start + count] += tokens.size(0) * tokens.size(2)

    def _rows(self, slots: Slots, call: Call, read: slice, request: AuxRequest) -> None:
        part = call.problem.sequences(read)
        if plain(part):
            rows = take(part, request)._replace(bias=self.buffer[slots["bias"]])
            self._sampled.append(_Sampled(slots, rows._replace(key=rows.key.clone()), output_squares(call.output)))
            return
        statistics = with_output(call.output, row_statistics(part, request))
        self._statistics(slots, statistics, spread(part.query, request), spread(part.key, request))

    def _add(self, calls: Sequence[_Measured | _Sampled], statistics: Tensor) -> None:
        """Add ``statistics`` [B, all heads of ``calls``, 9]."""
        first, last = calls[0].slots, calls[-1].slots
        self.buffer[first["statistics"].start : last["statistics"].stop].add_(statistics[..., :-1].sum(0).flatten())
        maxima = self.buffer[first["logit_max"].start : last["logit_max"].stop]
        torch.maximum(maxima, statistics[..., -1].amax(0), out=maxima)

    def _add_rows(self, calls: Sequence[_Sampled]) -> None:
        """Measure the rows of ``calls`` and add their statistics, and the norms of their queries and keys."""
        rows = join([call.rows for call in calls])
        first, last, heads = calls[0].slots, calls[-1].slots, rows.query.size(1)
        squares = torch.cat([call.squares for call in calls], dim=1)
        self._add(calls, with_squares(squares, measure(rows)))
        self.buffer[first["query_squares"].start : last["query_squares"].stop].add_(square_norm(rows.query, heads))
        key = spread(rows.key, rows.request)
        self.buffer[first["key_squares"].start : last["key_squares"].stop].add_(square_norm(key, heads))
        for call in calls:
            start = call.slots["counts"].start
            self._counts[start + 2] += rows.query.size(0) * rows.query.size(2)
            self._counts[start + 3] += key.size(0) * key.size(2)

    def _elements(self, pairs: tuple[tuple[int, int], ...]) -> Tensor:
        """Return ``pairs`` as a tensor [2, pairs], made once."""
        if pairs not in self._same_at:
            self._same_at[pairs] = torch.tensor(pairs, device=self.buffer.device).T.contiguous()
        return self._same_at[pairs]

    def _norm(self, start: int) -> Tensor:
        """Return the element ``start`` of the norms as a view that is made once."""
        if start not in self._views:
            self._views[start] = self._norms[start]
        return self._views[start]


def _runs(calls: Sequence[_Pending]) -> Iterator[list[_Pending]]:
    """Yield ``calls`` in the order of their slots, those together that lie side by side and are of one kind."""
    run: list[_Pending] = []
    for call in sorted(calls, key=lambda call: call.slots["statistics"].start):
        if run and (run[-1].slots["statistics"].stop != call.slots["statistics"].start or run[-1].kind != call.kind):
            yield run
            run = []
        run.append(call)
    if run:
        yield run
