# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The float32 workspace that key tiles add dQ to, and the kernel that rounds it to the gradient.

B·H·N_q·D·4 bytes while the backward runs: twice the size of dQ, and all that it needs beside inputs and gradients.
"""

import triton
import triton.language as tl
from torch import Tensor

from ..launching.launcher import Launcher

ELEMENTS = 2048
"""Numbers that one program rounds, of one pair (b, h): rows are found without a division for each."""


@triton.jit(do_not_specialize=["heads", "n_q", "tiles"])
def round_kernel(
    W, dQ, heads, n_q, tiles, s_b, s_h, s_n, factor, D: tl.constexpr, D_PAD: tl.constexpr, ROWS: tl.constexpr
):
    """Store dQ = factor·W in dQ's type; W [B·H, n_q, D] float32, dQ [B, H, n_q, D] by strides; grid (B·H·tiles,)."""
    pair = tl.program_id(0) // tiles
    row = (tl.program_id(0) - pair * tiles) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, D_PAD)[None, :]
    inside = (row < n_q) & (column < D)
    start = W + pair.to(tl.int64) * n_q * D
    w = tl.load(start + row * D + column, mask=inside, eviction_policy="evict_first")
    out = (pair // heads).to(tl.int64) * s_b + (pair % heads).to(tl.int64) * s_h
    tl.store(dQ + out + row.to(tl.int64) * s_n + column, (w * factor).to(dQ.dtype.element_ty), mask=inside)


def rounding(grad_query: Tensor) -> Launcher:
    """Return what writes factor·W to gradients laid out like ``grad_query`` [B, H, N_q, D].

    To be called with (W, gradient) and factor, W float32 of as many numbers.
    """
    batch, heads, n_q, dim = grad_query.shape
    d_pad = triton.next_power_of_2(dim)
    rows = ELEMENTS // d_pad
    tiles = triton.cdiv(n_q, rows)
    numbers = (heads, n_q, tiles, *grad_query.stride()[:3])
    constants = {"D": dim, "D_PAD": d_pad, "ROWS": rows}
    return Launcher(round_kernel, (batch * heads * tiles,), (None, None), numbers, constants)
