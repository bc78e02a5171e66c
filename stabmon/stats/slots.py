"""The places of the raw inputs of one attention: slices of the device buffer, and tensors that graphs write to."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Slots:
    """The slice of each raw input by name, ``slots["branch"]``, for the hooks of one attention.

    What belongs to the block is shared by its attentions. A power is a pair (sum of squares, number of elements).

    cells: a tensor for each raw input, of the size of its slice, made by ``DirectWriter``.
    """

    heads: int
    slices: dict[str, slice]
    cells: dict[str, Any] = field(default_factory=dict, compare=False)

    def __getitem__(self, name: str) -> slice:
        return self.slices[name]
