"""The interface between hooks and the device buffer: ``DeferredWriter`` in a step, ``DirectWriter`` in a graph."""

from typing import Protocol

from torch import Tensor

from stabmon.kernels import AuxRequest
from stabmon.kernels.observe import Call
from stabmon.stats.slots import Slots


class Writer(Protocol):
    """Takes the measures of a pass."""

    def power(self, slots: Slots, name: str, x: Tensor) -> None:
        """Add the sum of squares of ``x`` and its number of elements to the pair ``name``."""

    def gain(self, slots: Slots, gain: Tensor) -> None:
        """Set the mean absolute value of a LayerScale's ``gain``."""

    def call(self, slots: Slots, call: Call, read: slice, request: AuxRequest) -> None:
        """Add one call of ``sigmoid_attention``; without the kernel's statistics, the rows ``request`` of ``read``."""

    def statistics(self, slots: Slots, statistics: Tensor, query: Tensor, key: Tensor) -> None:
        """Add the kernel's ``statistics`` [B, H, 9] and the norms of ``query`` and ``key``, tokens [B, H, N, D]."""

    def counts(self, slots: Slots, samples: int, elements: int, keys: int) -> None:
        """Count ``samples`` sequences with ``elements`` output elements a head each, over ``keys`` keys."""

    def softmax(self, slots: Slots, sums: Tensor) -> None:
        """Add the sums over rows of entropy and largest weight, [H, 2], of a call of softmax attention."""
