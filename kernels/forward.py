# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The forward kernel of the triton backend.

Q, O [B, H, n_q, D]; K, V [B, H / group, n_k, D]; bias, slopes [H]; sums [B·H, tiles] float32.
One program computes one tile of BLOCK_Q queries of one head; q [BLOCK_Q, D_PAD], k and v [BLOCK_K, D_PAD].
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import descriptors, launch, tiles
from .problem import Problem


@triton.jit
def _accumulate(
    acc, q, K, V, b, h, start, stop, row, n_k, shift, slope,
    k_b, k_h, k_n, v_b, v_h, v_n, c_scale,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr, ALIBI: tl.constexpr, FORM: tl.constexpr, GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Add GAIN·sigmoid(z + b) v to acc over keys start .. stop; keys past n_k are zero in V and add nothing."""
    rows = row + tl.arange(0, BLOCK_Q)[:, None]
    for column in range(start, stop, BLOCK_K):
        column = tl.multiple_of(column, BLOCK_K)
        columns = column + tl.arange(0, BLOCK_K)[None, :]
        k = tiles.load(K, b, h, column, n_k, k_b, k_h, k_n, BLOCK_K, D, D_PAD, TMA)
        s = tl.dot(q, k.T, input_precision="ieee")
        p = tiles.weight(tiles.shifted(s, rows, columns, c_scale, shift, slope, ALIBI), FORM, GAIN)
        if MASKED:
            p = tl.where(columns <= rows, p, 0.0)
        v = tiles.load(V, b, h, column, n_k, v_b, v_h, v_n, BLOCK_K, D, D_PAD, TMA)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["n_q", "n_k", "pairs", "query_tiles", "together"])
def forward_kernel(
    Q, K, V, O, bias, slopes, sums,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n,
    heads, group, n_q, n_k, pairs, query_tiles, together,
    c_scale, c_bias, factor,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, SUMS: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """O[i] = Σ_j sigmoid(scale·q_i·k_j + b) v_j; grid (B·H·query_tiles,).

    Causal: tiles wholly below the diagonal first, unmasked; then those that it crosses; those above are never visited.
    """
    pair, tile = tiles.place(tl.program_id(0), query_tiles, pairs, together, CAUSAL)
    b, h = pair // heads, pair % heads
    first = tile * BLOCK_Q
    row = first + n_k - n_q
    q = tiles.load(Q, b, h, first, n_q, q_b, q_h, q_n, BLOCK_Q, D, D_PAD, TMA)
    shift, slope = tiles.head_terms(bias, slopes, h, c_bias, factor, HAS_BIAS, ALIBI)
    acc = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
    stop = n_k
    unmasked = n_k
    if CAUSAL:
        stop = tl.maximum(0, tl.minimum(n_k, row + BLOCK_Q))
        unmasked = tl.maximum(0, tl.minimum(n_k, row + 1)) // BLOCK_K * BLOCK_K
    acc = _accumulate(
        acc, q, K, V, b, h // group, 0, unmasked, row, n_k, shift, slope,
        k_b, k_h, k_n, v_b, v_h, v_n, c_scale, D, D_PAD, BLOCK_Q, BLOCK_K, False, ALIBI, FORM, GAIN, TMA,
    )  # fmt: skip
    if CAUSAL:
        acc = _accumulate(
            acc, q, K, V, b, h // group, unmasked, stop, row, n_k, shift, slope,
            k_b, k_h, k_n, v_b, v_h, v_n, c_scale, D, D_PAD, BLOCK_Q, BLOCK_K, True, ALIBI, FORM, GAIN, TMA,
        )  # fmt: skip
    o = (acc * (1.0 / GAIN)).to(q.dtype)
    tiles.store(O, o, b, h, first, n_q, o_b, o_h, o_n, BLOCK_Q, D, D_PAD, TMA)
    if SUMS:
        inside = (first + tl.arange(0, BLOCK_Q) < n_q)[:, None]
        o32 = tl.where(inside, o.to(tl.float32), 0.0)
        tl.store(sums + pair * query_tiles + tile, tl.sum(o32 * o32))


def forward(problem: Problem, output: Tensor, with_sums: bool) -> Tensor:
    """Write ``output`` [B, H, N_q, D] and return Σ out² [B, H] float32, or an empty tensor without sums."""
    query, key, value = problem.query, problem.key, problem.value
    plan = launch.forward_plan(problem, output)
    batch, heads, n_q, _ = query.shape
    query_tiles = triton.cdiv(n_q, plan.block_q)
    sums = torch.empty((batch, heads, query_tiles) if with_sums else 0, dtype=torch.float32, device=query.device)
    tensors = ((query, plan.block_q), (key, plan.block_k), (value, plan.block_k), (output, plan.block_q))
    forward_kernel[(batch * heads * query_tiles,)](
        *descriptors.operands(plan.tma, plan.d_pad, tensors), problem.bias, problem.alibi_slopes, sums,
        *descriptors.strides(plan.tma, tensors),
        heads, heads // key.size(1), n_q, key.size(2), batch * heads, query_tiles,
        launch.heads_together(key, problem.is_causal), *plan.constants(problem),
        SUMS=with_sums, **plan.switches(problem),
    )  # fmt: skip
    return sums.sum(-1) if with_sums else sums
