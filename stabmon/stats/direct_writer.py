"""The writer of graphs, which replay device work and no Python: measures are added to tensors on the device at once."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.stats.measured import set_bias, set_gain, spread, square_norm, wide, with_output
from stabmon.stats.plan import Plan
from stabmon.stats.rows import row_statistics
from stabmon.stats.slots import Slots


class DirectWriter:
    """Writes to the cells of slots with device operations alone: no synchronisation, nothing that grows as n².

    Each raw input of each attention has a cell of its own, so that layers of one kind give graphs of one kind, in which
    no layer's place in ``buffer`` [plan.width] is a constant: torch.compile makes one graph for them all. ``flush``
    brings the cells to the buffer.
    """

    def __init__(self, plan: Plan, buffer: Tensor) -> None:
        self._plan, self._buffer = plan, buffer
        self._initial = torch.tensor(plan.initial, device=buffer.device)
        cells = _cells(plan, self._initial)
        self._cells = list(cells.values())
        self._starts = [cell.clone() for cell in self._cells]
        self._pieces = _pieces(cells, self._initial)

    def power(self, slots: Slots, name: str, x: Tensor) -> None:
        """Add the sum of squares of ``x`` and its number of elements to the pair ``name``."""
        norm, cell = torch.linalg.vector_norm(x, dtype=wide(x)), slots.cells[name]
        cell[0].addcmul_(norm, norm)
        cell[1].add_(x.numel())

    def gain(self, slots: Slots, gain: Tensor) -> None:
        """Set the mean absolute value of a LayerScale's ``gain``."""
        set_gain(slots.cells["layer_scale"], gain)

    def call(self, slots: Slots, call: Call, read: slice, request: AuxRequest) -> None:
        """Add one call of ``sigmoid_attention``; without the kernel's statistics, the rows ``request`` of ``read``."""
        query, key = call.problem.query[read], call.problem.key[read]
        if call.aux is not None:
            statistics = call.aux.statistics
        else:
            statistics = with_output(call.output, row_statistics(call.problem.sequences(read), request))
        set_bias(slots.cells["bias"], call.problem.any_bias)
        self.statistics(slots, statistics, spread(query, request), spread(key, request))
        self.counts(slots, call.problem.query.size(0), call.output[0, 0].numel(), call.problem.n_k)

    def statistics(self, slots: Slots, statistics: Tensor, query: Tensor, key: Tensor) -> None:
        """Add the kernel's ``statistics`` [B, H, 9] and the norms of ``query`` and ``key``, tokens [B, H, N, D]."""
        slots.cells["statistics"].view(slots.heads, -1).add_(statistics[..., :-1].sum(0))
        largest = slots.cells["logit_max"]
        largest.copy_(torch.maximum(largest, statistics[..., -1].amax(0)))
        slots.cells["query_squares"].add_(square_norm(query, slots.heads))
        slots.cells["key_squares"].add_(square_norm(key, slots.heads))
        slots.cells["counts"][2].add_(query.size(0) * query.size(2))
        slots.cells["counts"][3].add_(key.size(0) * key.size(2))

    def counts(self, slots: Slots, samples: int, elements: int, keys: int) -> None:
        """Count ``samples`` sequences with ``elements`` output elements a head each, over ``keys`` keys."""
        slots.cells["counts"][0].add_(samples)
        slots.cells["counts"][1].add_(samples * elements)
        slots.cells["keys"].clamp_(min=keys)

    def softmax(self, slots: Slots, sums: Tensor) -> None:
        """Add the sums over rows of entropy and largest weight, [H, 2], of a call of softmax attention."""
        slots.cells["softmax"].view(slots.heads, 2).add_(sums)

    def flush(self) -> None:
        """Bring the cells of all layers to the buffer together, and set them back."""
        if not self._cells:
            return
        new, (sums, maxima) = torch.cat(self._pieces), (self._plan.sums, self._plan.maxima)
        self._buffer[sums].add_(new[sums])
        torch.maximum(self._buffer[maxima], new[maxima], out=self._buffer[maxima])
        numbers = slice(maxima.stop, None)
        is_set = new[numbers].view(torch.int32) != self._initial[numbers].view(torch.int32)  # MISSING is a NaN
        self._buffer[numbers].copy_(torch.where(is_set, new[numbers], self._buffer[numbers]))
        torch._foreach_copy_(self._cells, self._starts)


def _cells(plan: Plan, initial: Tensor) -> dict[tuple[int, int], Tensor]:
    """Give ``plan``'s slots their cells, and return each once by the ends of its slice."""
    cells: dict[tuple[int, int], Tensor] = {}
    for slots in plan.slots:
        for name, at in slots.slices.items():
            if (at.start, at.stop) not in cells:
                cells[at.start, at.stop] = _static(initial[at].clone())
            slots.cells[name] = cells[at.start, at.stop]
    return cells


def _static(cell: Tensor) -> Tensor:
    """Mark ``cell`` as ``torch._dynamo.mark_static_address`` does, without loading it: CUDA graphs may write it."""
    cell._dynamo_static_input_type = "unguarded"  # type: ignore[attr-defined]
    return cell


def _pieces(cells: dict[tuple[int, int], Tensor], initial: Tensor) -> list[Tensor]:
    """Return ``cells`` in the order of the buffer, with what belongs to no attention between them."""
    pieces, end = [], 0
    for (start, stop), cell in sorted(cells.items(), key=lambda item: item[0]):
        if start > end:
            pieces.append(initial[end:start])
        pieces.append(cell)
        end = stop
    return [*pieces, initial[end:]]
