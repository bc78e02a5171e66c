"""The raw numbers of one attention, by name, and the slices of the buffer that hold them."""

from typing import NamedTuple

SUMS = (
    "output_square_sum",
    "row_mass_sum",
    "rows",
    "logit_sum",
    "logit_square_sum",
    "pairs",
    "saturated",
    "dead",
    "query_square_sum",
    "key_square_sum",
)
"""Columns of a site's [heads, 10] matrix of sums; the first eight are the kernel's, in its order."""
COUNTS = ("samples", "output_elements", "query_tokens", "key_tokens")
"""A site's counts: sequences; output elements of one head; tokens whose query and key norms were added."""


class Slots(NamedTuple):
    """Where one attention keeps its numbers; a power is a pair (sum of squares, number of elements).

    gradient and the stream's two powers belong to the block and are shared by its attentions.
    """

    heads: int
    sums: slice
    counts: slice
    logit_max: slice
    keys: slice
    bias: slice
    gain: slice
    branch: slice
    stream_in: slice
    stream_out: slice
    gradient: slice
    twin: slice
    best_bias: slice
