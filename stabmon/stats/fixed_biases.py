"""Biases that do not learn, brought to the buffer by one operation for all layers."""

from typing import NamedTuple

import torch
from torch import Tensor

from stabmon.stats.measured import set_bias


class _Noted(NamedTuple):
    start: int
    stop: int
    value: float
    """Of a number; ``tensor`` and its version of a tensor."""
    tensor: int
    version: int


class FixedBiases:
    """Keeps biases until they are written; those that were written before are on the device already.

    A tensor counts as changed when its version has changed: a change through ``.data`` has none and is not seen.
    """

    def __init__(self) -> None:
        self._noted: dict[_Noted, Tensor | float] = {}
        self._written: tuple[_Noted, ...] = ()
        self._kept: tuple[Tensor | float, ...] = ()
        """The biases written last: while they are kept, none of their identities comes again."""
        self._elements: Tensor | None = None
        self._values: Tensor | None = None

    def note(self, at: slice, bias: Tensor | float) -> bool:
        """Keep the bias of the heads ``at``; return False for one that learns, which changes before it is written."""
        if not isinstance(bias, Tensor):
            self._noted[_Noted(at.start, at.stop, bias, 0, 0)] = bias
        elif bias.requires_grad or bias.is_inference():
            return False
        else:
            self._noted[_Noted(at.start, at.stop, 0.0, id(bias), bias._version)] = bias
        return True

    def write(self, buffer: Tensor) -> None:
        """Write what was noted to ``buffer`` [width], and forget it."""
        noted = tuple(self._noted)
        if noted and noted != self._written:
            self._bring(buffer)
        self._noted = {}
        if noted and self._elements is not None and self._values is not None:
            buffer.index_copy_(0, self._elements, self._values)

    def _bring(self, buffer: Tensor) -> None:
        """Bring biases to the device that are not there; one that was changed since it was noted is missing."""
        same = {
            one: bias
            for one, bias in self._noted.items()
            if not isinstance(bias, Tensor) or bias._version == one.version
        }
        places = [element for one in same for element in range(one.start, one.stop)]
        self._elements = torch.tensor(places, dtype=torch.int64, device=buffer.device)
        self._values = torch.empty(len(places), dtype=buffer.dtype, device=buffer.device)
        first = 0
        for one, bias in same.items():
            last = first + one.stop - one.start
            set_bias(self._values[first:last], bias)
            first = last
        self._written, self._kept = tuple(same), tuple(same.values())
