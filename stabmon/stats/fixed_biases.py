"""Biases that do not learn, brought to the buffer by two operations for all layers."""

from typing import NamedTuple

import torch
from torch import Tensor


class _Noted(NamedTuple):
    start: int
    stop: int
    version: int
    """Of a tensor when it was noted; 0 of a number."""


class FixedBiases:
    """Keeps biases until they are written, with all others of the step.

    A tensor that was changed in place in between is missing; a change through ``.data`` in between is not seen.
    """

    def __init__(self) -> None:
        self._noted: dict[_Noted, Tensor | float] = {}
        self._places: tuple[tuple[int, int], ...] = ()
        self._elements: Tensor | None = None
        """The elements of the buffer that ``_places`` covers, on the device."""
        self._numbers: dict[tuple[float, int], Tensor] = {}
        """Numbers on the device, by value and heads."""

    def note(self, at: slice, bias: Tensor | float) -> bool:
        """Keep the bias of the heads ``at``; return False for one that learns, which changes before it is written."""
        if isinstance(bias, Tensor) and (bias.requires_grad or bias.is_inference()):
            return False
        self._noted[_Noted(at.start, at.stop, bias._version if isinstance(bias, Tensor) else 0)] = bias
        return True

    def write(self, buffer: Tensor) -> None:
        """Write what was noted to ``buffer`` [width], and forget it."""
        same = {
            (one.start, one.stop): bias
            for one, bias in self._noted.items()
            if not isinstance(bias, Tensor) or bias._version == one.version
        }
        self._noted = {}
        if same:
            values = [self._values(bias, stop - start, buffer) for (start, stop), bias in same.items()]
            buffer.index_copy_(0, self._elements_of(tuple(same), buffer), torch.cat(values))

    def _values(self, bias: Tensor | float, heads: int, buffer: Tensor) -> Tensor:
        """Return the bias of each head [heads]; of a bias for each sequence, [B, 1], the mean."""
        if isinstance(bias, Tensor):
            return (bias if bias.dim() == 1 else bias.mean()).detach().to(buffer).expand(heads)
        if (bias, heads) not in self._numbers:
            self._numbers[bias, heads] = torch.full((heads,), bias, dtype=buffer.dtype, device=buffer.device)
        return self._numbers[bias, heads]

    def _elements_of(self, places: tuple[tuple[int, int], ...], buffer: Tensor) -> Tensor:
        if self._elements is None or places != self._places:
            elements = [element for start, stop in places for element in range(start, stop)]
            self._places, self._elements = places, torch.tensor(elements, device=buffer.device)
        return self._elements
