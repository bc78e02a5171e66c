# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The backward kernels of the triton backend: one for dQ and the bias, one for dK and dV, no atomics.

Q, dO, dQ [B, H, n_q, D]; K, V, dK, dV [B, H_k, n_k, D]; bias, slopes [H]; dB [B·H, tiles] float32.
With P = sigmoid(z + b) computed again: dP = dO Vᵀ, dS = P (1 − P) dP, dV = Pᵀ dO, dK = scale·dSᵀ Q, dQ = scale·dS K,
db = Σ dS. Keys and queries past the end are zero in K, V, Q and dO, so their dS is 0 and they add nothing.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import descriptors, launch, tiles
from .problem import Problem


@triton.jit
def _logit_gradient(p, dp, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr):
    """Return GRADIENT_GAIN·P (1 − P) dP of p = GAIN·P."""
    t = p * dp
    if GAIN == 1.0 and GRADIENT_GAIN == 1.0:
        return t - p * t
    else:
        return t * (GRADIENT_GAIN / GAIN - p * (GRADIENT_GAIN / GAIN / GAIN))


@triton.jit
def _accumulate_query(
    dq, db, q, do, K, V, b, h, start, stop, row, n_k, shift, slope,
    k_b, k_h, k_n, v_b, v_h, v_n, c_scale,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr, ALIBI: tl.constexpr, BIAS_GRADIENT: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Add dS k to dq and Σ_j dS to db over keys start .. stop."""
    rows = row + tl.arange(0, BLOCK_Q)[:, None]
    for column in range(start, stop, BLOCK_K):
        column = tl.multiple_of(column, BLOCK_K)
        columns = column + tl.arange(0, BLOCK_K)[None, :]
        k = tiles.load(K, b, h, column, n_k, k_b, k_h, k_n, BLOCK_K, D, D_PAD, TMA)
        v = tiles.load(V, b, h, column, n_k, v_b, v_h, v_n, BLOCK_K, D, D_PAD, TMA)
        s = tl.dot(q, k.T, input_precision="ieee")
        dp = tl.dot(do, v.T, input_precision="ieee")
        p = tiles.weight(tiles.shifted(s, rows, columns, c_scale, shift, slope, ALIBI), FORM, GAIN)
        if MASKED:
            p = tl.where(columns <= rows, p, 0.0)
        ds = _logit_gradient(p, dp, GAIN, GRADIENT_GAIN)
        if BIAS_GRADIENT:
            db += tl.sum(ds, 1)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq, db


@triton.jit(do_not_specialize=["n_q", "n_k", "pairs", "query_tiles", "together"])
def query_kernel(
    Q, K, V, dO, dQ, bias, slopes, dB,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, g_b, g_h, g_n,
    heads, group, n_q, n_k, pairs, query_tiles, together,
    c_scale, c_bias, factor, scale,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, BIAS_GRADIENT: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """dQ[i] = scale·Σ_j dS[i, j] k_j and dB[tile] = Σ_ij dS[i, j]; grid (B·H·query_tiles,), walks like the forward."""
    pair, tile = tiles.place(tl.program_id(0), query_tiles, pairs, together, CAUSAL)
    b, h = pair // heads, pair % heads
    first = tile * BLOCK_Q
    row = first + n_k - n_q
    q = tiles.load(Q, b, h, first, n_q, q_b, q_h, q_n, BLOCK_Q, D, D_PAD, TMA)
    do = tiles.load(dO, b, h, first, n_q, o_b, o_h, o_n, BLOCK_Q, D, D_PAD, TMA)
    shift, slope = tiles.head_terms(bias, slopes, h, c_bias, factor, HAS_BIAS, ALIBI)
    dq = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
    db = tl.zeros([BLOCK_Q], tl.float32)
    stop = n_k
    unmasked = n_k
    if CAUSAL:
        stop = tl.maximum(0, tl.minimum(n_k, row + BLOCK_Q))
        unmasked = tl.maximum(0, tl.minimum(n_k, row + 1)) // BLOCK_K * BLOCK_K
    dq, db = _accumulate_query(
        dq, db, q, do, K, V, b, h // group, 0, unmasked, row, n_k, shift, slope,
        k_b, k_h, k_n, v_b, v_h, v_n, c_scale, D, D_PAD, BLOCK_Q, BLOCK_K,
        False, ALIBI, BIAS_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
    )  # fmt: skip
    if CAUSAL:
        dq, db = _accumulate_query(
            dq, db, q, do, K, V, b, h // group, unmasked, stop, row, n_k, shift, slope,
            k_b, k_h, k_n, v_b, v_h, v_n, c_scale, D, D_PAD, BLOCK_Q, BLOCK_K,
            True, ALIBI, BIAS_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
        )  # fmt: skip
    dq = dq * (scale / GRADIENT_GAIN)
    tiles.store(dQ, dq.to(q.dtype), b, h, first, n_q, g_b, g_h, g_n, BLOCK_Q, D, D_PAD, TMA)
    if BIAS_GRADIENT:
        tl.store(dB + pair * query_tiles + tile, tl.sum(db) * (1.0 / GRADIENT_GAIN))


@triton.jit
def _accumulate_key(
    dk, dv, k, v, Q, dO, b, h, start, stop, column, offset, n_q, shift, slope,
    q_b, q_h, q_n, o_b, o_h, o_n, c_scale,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr, ALIBI: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Add Pᵀ do to dv and dSᵀ q to dk over queries start .. stop, on transposed tiles [BLOCK_K, BLOCK_Q]."""
    columns = column + tl.arange(0, BLOCK_K)[:, None]
    for first in range(start, stop, BLOCK_Q):
        first = tl.multiple_of(first, BLOCK_Q)
        rows = first + offset + tl.arange(0, BLOCK_Q)[None, :]
        q = tiles.load(Q, b, h, first, n_q, q_b, q_h, q_n, BLOCK_Q, D, D_PAD, TMA)
        do = tiles.load(dO, b, h, first, n_q, o_b, o_h, o_n, BLOCK_Q, D, D_PAD, TMA)
        s = tl.dot(k, q.T, input_precision="ieee")
        dp = tl.dot(v, do.T, input_precision="ieee")
        p = tiles.weight(tiles.shifted(s, rows, columns, c_scale, shift, slope, ALIBI), FORM, GAIN)
        if MASKED:
            p = tl.where(columns <= rows, p, 0.0)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
        ds = _logit_gradient(p, dp, GAIN, GRADIENT_GAIN)
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit(do_not_specialize=["n_q", "n_k", "pairs", "key_tiles", "together"])
def key_kernel(
    Q, K, V, dO, dK, dV, bias, slopes,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, gk_b, gk_h, gk_n, gv_b, gv_h, gv_n,
    key_heads, group, n_q, n_k, pairs, key_tiles, together,
    c_scale, c_bias, factor, scale,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    CAUSAL: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """dV[j] = Σ_i P[i, j] dO_i and dK[j] = scale·Σ_i dS[i, j] q_i; grid (B·H_k·key_tiles,).

    The query heads that share a key head are summed here, in float32. Causal: queries before the tile are not visited.
    """
    pair, tile = tiles.place(tl.program_id(0), key_tiles, pairs, together, False)
    b, key_head = pair // key_heads, pair % key_heads
    column = tile * BLOCK_K
    offset = n_k - n_q
    k = tiles.load(K, b, key_head, column, n_k, k_b, k_h, k_n, BLOCK_K, D, D_PAD, TMA)
    v = tiles.load(V, b, key_head, column, n_k, v_b, v_h, v_n, BLOCK_K, D, D_PAD, TMA)
    dk = tl.zeros([BLOCK_K, D_PAD], tl.float32)
    dv = tl.zeros([BLOCK_K, D_PAD], tl.float32)
    start = 0
    unmasked = 0
    if CAUSAL:
        start = tl.minimum(n_q, tl.maximum(0, column - offset)) // BLOCK_Q * BLOCK_Q
        unmasked = tl.cdiv(tl.minimum(n_q, tl.maximum(0, column + BLOCK_K - 1 - offset)), BLOCK_Q) * BLOCK_Q
    for member in range(0, group):
        h = key_head * group + member
        shift, slope = tiles.head_terms(bias, slopes, h, c_bias, factor, HAS_BIAS, ALIBI)
        if CAUSAL:
            dk, dv = _accumulate_key(
                dk, dv, k, v, Q, dO, b, h, start, unmasked, column, offset, n_q, shift, slope,
                q_b, q_h, q_n, o_b, o_h, o_n, c_scale, D, D_PAD, BLOCK_Q, BLOCK_K,
                True, ALIBI, FORM, GAIN, GRADIENT_GAIN, TMA,
            )  # fmt: skip
        dk, dv = _accumulate_key(
            dk, dv, k, v, Q, dO, b, h, unmasked, n_q, column, offset, n_q, shift, slope,
            q_b, q_h, q_n, o_b, o_h, o_n, c_scale, D, D_PAD, BLOCK_Q, BLOCK_K,
            False, ALIBI, FORM, GAIN, GRADIENT_GAIN, TMA,
        )  # fmt: skip
    dk = dk * (scale / GRADIENT_GAIN)
    tiles.store(dK, dk.to(k.dtype), b, key_head, column, n_k, gk_b, gk_h, gk_n, BLOCK_K, D, D_PAD, TMA)
    tiles.store(dV, (dv * (1.0 / GAIN)).to(k.dtype), b, key_head, column, n_k, gv_b, gv_h, gv_n, BLOCK_K, D, D_PAD, TMA)


def backward(problem: Problem, grad: Tensor, grads: tuple[Tensor, Tensor, Tensor], bias_gradient: bool) -> Tensor:
    """Write ``grads`` of query, key and value and return the bias's [H] float32, or an empty tensor.

    Bitwise repeatable with and without ``problem.deterministic``: each number is summed by one program, in one order.
    """
    grad_bias = query_gradient(problem, grad, grads[0], bias_gradient)
    key_value_gradient(problem, grad, grads[1], grads[2])
    return grad_bias


def query_gradient(problem: Problem, grad: Tensor, grad_query: Tensor, bias_gradient: bool) -> Tensor:
    """Write ``grad_query`` [B, H, N_q, D] and return the bias's gradient [H] float32, or an empty tensor."""
    query, key, value = problem.query, problem.key, problem.value
    plan = launch.query_plan(problem, grad, grad_query)
    batch, heads, n_q, _ = query.shape
    query_tiles = triton.cdiv(n_q, plan.block_q)
    partial = torch.empty((batch, heads, query_tiles) if bias_gradient else 0, dtype=torch.float32, device=query.device)
    bq, bk = plan.block_q, plan.block_k
    tensors = ((query, bq), (key, bk), (value, bk), (grad, bq), (grad_query, bq))
    query_kernel[(batch * heads * query_tiles,)](
        *descriptors.operands(plan.tma, plan.d_pad, tensors), problem.bias, problem.alibi_slopes, partial,
        *descriptors.strides(plan.tma, tensors),
        heads, heads // key.size(1), n_q, key.size(2), batch * heads, query_tiles,
        launch.heads_together(key, problem.is_causal), *plan.constants(problem), problem.scale,
        BIAS_GRADIENT=bias_gradient, GRADIENT_GAIN=plan.gradient_gain, **plan.switches(problem),
    )  # fmt: skip
    return partial.sum((0, 2)) if bias_gradient else partial


def key_value_gradient(problem: Problem, grad: Tensor, grad_key: Tensor, grad_value: Tensor) -> None:
    """Write ``grad_key`` and ``grad_value`` [B, H_k, N_k, D]."""
    query, key, value = problem.query, problem.key, problem.value
    plan = launch.key_plan(problem, grad, grad_key, grad_value)
    batch, key_heads, n_k, _ = key.shape
    key_tiles = triton.cdiv(n_k, plan.block_k)
    bq, bk = plan.block_q, plan.block_k
    tensors = ((query, bq), (key, bk), (value, bk), (grad, bq), (grad_key, bk), (grad_value, bk))
    key_kernel[(batch * key_heads * key_tiles,)](
        *descriptors.operands(plan.tma, plan.d_pad, tensors), problem.bias, problem.alibi_slopes,
        *descriptors.strides(plan.tma, tensors),
        key_heads, query.size(1) // key_heads, query.size(2), n_k, batch * key_heads, key_tiles,
        launch.heads_together(query, problem.is_causal), *plan.constants(problem), problem.scale,
        GRADIENT_GAIN=plan.gradient_gain, **plan.switches(problem),
    )  # fmt: skip
