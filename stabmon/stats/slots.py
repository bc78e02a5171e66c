"""The slices of the device buffer that hold the raw inputs of one attention."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slots:
    """The slice of each raw input by name, ``slots["branch"]``, for the hooks of one attention.

    What belongs to the block is shared by its attentions. A power is a pair (sum of squares, number of elements).
    """

    heads: int
    slices: dict[str, slice]

    def __getitem__(self, name: str) -> slice:
        return self.slices[name]
