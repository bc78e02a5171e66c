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
)
"""Columns of a site's [heads, 8] matrix of sums: those of the kernel's statistics that add, in its order."""
COUNTS = ("samples", "output_elements", "query_tokens", "key_tokens")
"""A site's counts: sequences; output elements of one head; tokens whose query and key norms were added."""


class Slots(NamedTuple):
    """Where one attention keeps its numbers; a power is a pair (sum of squares, number of elements).

    query_squares, key_squares: [heads], sums of squares of the tokens that were counted. gradient and the stream's two
    powers belong to the block and are shared by its attentions.
    """

    heads: int
    sums: slice
    query_squares: slice
    key_squares: slice
    counts: slice
    branch: slice
    stream_in: slice
    stream_out: slice
    twin: slice
    logit_max: slice
    keys: slice
    bias: slice
    gain: slice
    gradient: slice
    best_bias: slice
