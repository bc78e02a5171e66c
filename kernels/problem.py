"""One checked call of the triton backend, as its launchers take it."""

from typing import NamedTuple

from torch import Tensor


class Problem(NamedTuple):
    """A call with every default filled in.

    query: [B, H, N_q, D]. key, value: [B, H_k, N_k, D]. bias: [H] float32, or None and ``bias_value`` holds for all.
    alibi_slopes: [H] float32 or None.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None
    bias_value: float
    alibi_slopes: Tensor | None
    scale: float
    is_causal: bool
