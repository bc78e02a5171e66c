# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The backward kernels of the triton backend: one for dQ and the bias, one for dK and dV, no atomics.

Q, dO, dQ [B, H, n_q, D]; K, V, dK, dV [B, H_k, n_k, D]; bias [B, H] and mask by strides; slopes [H];
dB [B·H, tiles], dM [B, H, n_q or 1, n_k] float32.
With P = sigmoid(z + b) computed again: dP = dO Vᵀ, dS = P (1 − P) dP, dV = Pᵀ dO, dK = scale·dSᵀ Q, dQ = scale·dS K,
db = Σ dS. Keys and queries past the end are zero in K, V, Q and dO, so their dS is 0 and they add nothing.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..cache import layout, memoize
from ..launching import descriptors
from ..launching.launcher import Launcher
from ..problem import Problem
from . import launch, tiles, visible


@triton.jit
def _logit_gradient(p, dp, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr):
    """Return GRADIENT_GAIN·P (1 − P) dP of p = GAIN·P."""
    t = p * dp
    if GAIN == 1.0 and GRADIENT_GAIN == 1.0:
        return t - p * t
    else:
        return t * (GRADIENT_GAIN / GAIN - p * (GRADIENT_GAIN / GAIN / GAIN))


@triton.jit
def _accumulate_dq(
    dq, db, q, do, K, V, mask, dM, b, h, start, stop, row, n_k, limit, window, shift, slope,
    k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    MASK: tl.constexpr, ALIBI: tl.constexpr, BIAS_GRADIENT: tl.constexpr, MASK_GRADIENT: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Add dS k to dq and Σ_j dS to db over keys start .. stop, and store dS where the mask differs by query."""
    rows = row + tl.arange(0, BLOCK_Q)[:, None]
    for column in range(start, stop, BLOCK_K):
        column = tl.multiple_of(column, BLOCK_K)
        columns = column + tl.arange(0, BLOCK_K)[None, :]
        k = tiles.load(K, b, h, column, n_k, k_b, k_h, k_n, BLOCK_K, D, D_PAD, TMA)
        v = tiles.load(V, b, h, column, n_k, v_b, v_h, v_n, BLOCK_K, D, D_PAD, TMA)
        s = tl.dot(q, k.T, input_precision="ieee")
        dp = tl.dot(do, v.T, input_precision="ieee")
        m = visible.load_mask(mask, rows, columns, n_k, m_q, m_k, MASK)
        x = tiles.shifted(s, rows, columns, c_scale, shift, slope, ALIBI)
        p = tiles.weight(visible.add_mask(x, m, factor, MASK), FORM, GAIN)
        p = visible.apply_mask(p, rows, columns, limit, window, m, MASK)
        ds = _logit_gradient(p, dp, GAIN, GRADIENT_GAIN)
        if BIAS_GRADIENT:
            db += tl.sum(ds, 1)
        if MASK_GRADIENT:
            at = rows.to(tl.int64) * n_k + columns
            tl.store(dM + at, ds * (1.0 / GRADIENT_GAIN), mask=(rows < n_k) & (columns < n_k))
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
    return dq, db


@triton.jit(do_not_specialize=["n_q", "n_k", "pairs", "query_tiles", "together", "window", "ahead", "bias_b", "bias_h"])
def bwd_dq_kernel(
    Q, K, V, dO, dQ, bias, slopes, mask, lengths, q_starts, k_starts, dB, dM,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, g_b, g_h, g_n, bias_b, bias_h, m_b, m_h, m_q, m_k,
    heads, group, n_q, n_k, window, ahead, pairs, query_tiles, together,
    c_scale, c_bias, factor, scale,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    RULES: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, BIAS_GRADIENT: tl.constexpr,
    MASK_GRADIENT: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """dQ[i] = scale·Σ_j dS[i, j] k_j and dB[tile] = Σ_ij dS[i, j]; grid (B·H·query_tiles,), walks like the forward.

    MASK_GRADIENT: also dM[i, j] = dS[i, j], 0 before.
    """
    window = (window, ahead)
    pair, tile = tiles.tile_of_program(tl.program_id(0), query_tiles, pairs, together, visible.CAUSAL & RULES)
    b, h = pair // heads, pair % heads
    shift, slope = tiles.head_terms(bias, slopes, b, h, heads, bias_b, bias_h, c_bias, factor, HAS_BIAS, ALIBI)
    b, first_q, n_q, first_k, n_k, limit = visible.sequence(b, n_q, n_k, lengths, q_starts, k_starts, RULES)
    Q, dO = visible.begin(Q, first_q, q_n, RULES), visible.begin(dO, first_q, o_n, RULES)
    K, V = visible.begin(K, first_k, k_n, RULES), visible.begin(V, first_k, v_n, RULES)
    dQ = visible.begin(dQ, first_q, g_n, RULES)
    first = tile * BLOCK_Q
    row = first + n_k - n_q
    mask = visible.mask_of_head(mask, b, h, n_k - n_q, m_b, m_h, m_q, RULES)
    if MASK_GRADIENT:
        dM += (pair.to(tl.int64) * n_q - (n_k - n_q)) * n_k
    q = tiles.load(Q, b, h, first, n_q, q_b, q_h, q_n, BLOCK_Q, D, D_PAD, TMA)
    do = tiles.load(dO, b, h, first, n_q, o_b, o_h, o_n, BLOCK_Q, D, D_PAD, TMA)
    dq = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
    db = tl.zeros([BLOCK_Q], tl.float32)
    edges = visible.keys_of(row, limit, window, BLOCK_Q, BLOCK_K, RULES)
    if visible.WINDOW & RULES:
        dq, db = _accumulate_dq(
            dq, db, q, do, K, V, mask, dM, b, h // group, edges[0], edges[1], row, n_k, limit, window, shift, slope,
            k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
            RULES, ALIBI, BIAS_GRADIENT, MASK_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
        )  # fmt: skip
    dq, db = _accumulate_dq(
        dq, db, q, do, K, V, mask, dM, b, h // group, edges[1], edges[2], row, n_k, limit, window, shift, slope,
        k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
        visible.TENSOR & RULES, ALIBI, BIAS_GRADIENT, MASK_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
    )  # fmt: skip
    if (visible.CAUSAL | visible.WINDOW | visible.LENGTHS) & RULES:
        dq, db = _accumulate_dq(
            dq, db, q, do, K, V, mask, dM, b, h // group, edges[2], edges[3], row, n_k, limit, window, shift, slope,
            k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
            RULES, ALIBI, BIAS_GRADIENT, MASK_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
        )  # fmt: skip
    dq = dq * (scale / GRADIENT_GAIN)
    tiles.store(dQ, dq.to(q.dtype), b, h, first, n_q, g_b, g_h, g_n, BLOCK_Q, D, D_PAD, TMA)
    if BIAS_GRADIENT:
        tl.store(dB + pair * query_tiles + tile, tl.sum(db) * (1.0 / GRADIENT_GAIN))


@triton.jit
def _accumulate_dkdv(
    dk, dv, dm, k, v, Q, dO, mask, b, h, start, stop, column, offset, n_q, limit, window, shift, slope,
    q_b, q_h, q_n, o_b, o_h, o_n, m_q, m_k, c_scale, factor,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    MASK: tl.constexpr, ALIBI: tl.constexpr, MASK_GRADIENT: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Add Pᵀ do to dv, dSᵀ q to dk and Σ_i dS to dm over queries start .. stop, on tiles [BLOCK_K, BLOCK_Q]."""
    columns = column + tl.arange(0, BLOCK_K)[:, None]
    for first in range(start, stop, BLOCK_Q):
        first = tl.multiple_of(first, BLOCK_Q)
        rows = first + offset + tl.arange(0, BLOCK_Q)[None, :]
        q = tiles.load(Q, b, h, first, n_q, q_b, q_h, q_n, BLOCK_Q, D, D_PAD, TMA)
        do = tiles.load(dO, b, h, first, n_q, o_b, o_h, o_n, BLOCK_Q, D, D_PAD, TMA)
        s = tl.dot(k, q.T, input_precision="ieee")
        dp = tl.dot(v, do.T, input_precision="ieee")
        m = visible.load_mask(mask, rows, columns, n_q + offset, m_q, m_k, MASK)
        x = tiles.shifted(s, rows, columns, c_scale, shift, slope, ALIBI)
        p = tiles.weight(visible.add_mask(x, m, factor, MASK), FORM, GAIN)
        p = visible.apply_mask(p, rows, columns, limit, window, m, MASK)
        dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
        ds = _logit_gradient(p, dp, GAIN, GRADIENT_GAIN)
        if MASK_GRADIENT:
            dm += tl.sum(ds, 1)
        dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv, dm


@triton.jit(do_not_specialize=["n_q", "n_k", "pairs", "key_tiles", "together", "window", "ahead", "bias_b", "bias_h"])
def bwd_dkdv_kernel(
    Q, K, V, dO, dK, dV, bias, slopes, mask, lengths, q_starts, k_starts, dM,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, gk_b, gk_h, gk_n, gv_b, gv_h, gv_n, bias_b, bias_h,
    m_b, m_h, m_q, m_k,
    key_heads, group, n_q, n_k, window, ahead, pairs, key_tiles, together,
    c_scale, c_bias, factor, scale,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    RULES: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, MASK_GRADIENT: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, GRADIENT_GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """dV[j] = Σ_i P[i, j] dO_i and dK[j] = scale·Σ_i dS[i, j] q_i; grid (B·H_k·key_tiles,).

    The query heads that share a key head are summed here, in float32. Padding keys are computed and stored as 0.
    MASK_GRADIENT: also dM[h, j] = Σ_i dS[i, j] of each query head h.
    """
    window = (window, ahead)
    pair, tile = tiles.tile_of_program(tl.program_id(0), key_tiles, pairs, together, False)
    sequence, key_head = pair // key_heads, pair % key_heads
    b, first_q, n_q, first_k, n_k, limit = visible.sequence(sequence, n_q, n_k, lengths, q_starts, k_starts, RULES)
    Q, dO = visible.begin(Q, first_q, q_n, RULES), visible.begin(dO, first_q, o_n, RULES)
    K, V = visible.begin(K, first_k, k_n, RULES), visible.begin(V, first_k, v_n, RULES)
    dK, dV = visible.begin(dK, first_k, gk_n, RULES), visible.begin(dV, first_k, gv_n, RULES)
    column = tile * BLOCK_K
    offset = n_k - n_q
    k = tiles.load(K, b, key_head, column, n_k, k_b, k_h, k_n, BLOCK_K, D, D_PAD, TMA)
    v = tiles.load(V, b, key_head, column, n_k, v_b, v_h, v_n, BLOCK_K, D, D_PAD, TMA)
    dk = tl.zeros([BLOCK_K, D_PAD], tl.float32)
    dv = tl.zeros([BLOCK_K, D_PAD], tl.float32)
    dm = tl.zeros([BLOCK_K], tl.float32)
    MASK: tl.constexpr = (visible.CAUSAL | visible.WINDOW) & RULES
    TENSOR: tl.constexpr = visible.TENSOR & RULES
    edges = visible.queries_of(column, offset, n_q, limit, window, BLOCK_Q, BLOCK_K, RULES)
    for member in range(0, group):
        h = key_head * group + member
        shift, slope = tiles.head_terms(
            bias, slopes, sequence, h, key_heads * group, bias_b, bias_h, c_bias, factor, HAS_BIAS, ALIBI
        )
        m = visible.mask_of_head(mask, b, h, offset, m_b, m_h, m_q, RULES)
        if MASK:
            dk, dv, dm = _accumulate_dkdv(
                dk, dv, dm, k, v, Q, dO, m, b, h, edges[0], edges[1], column, offset, n_q, limit, window, shift, slope,
                q_b, q_h, q_n, o_b, o_h, o_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
                MASK | TENSOR, ALIBI, MASK_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
            )  # fmt: skip
        dk, dv, dm = _accumulate_dkdv(
            dk, dv, dm, k, v, Q, dO, m, b, h, edges[1], edges[2], column, offset, n_q, limit, window, shift, slope,
            q_b, q_h, q_n, o_b, o_h, o_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
            TENSOR, ALIBI, MASK_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
        )  # fmt: skip
        if visible.WINDOW & RULES:
            dk, dv, dm = _accumulate_dkdv(
                dk, dv, dm, k, v, Q, dO, m, b, h, edges[2], edges[3], column, offset, n_q, limit, window, shift, slope,
                q_b, q_h, q_n, o_b, o_h, o_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
                MASK | TENSOR, ALIBI, MASK_GRADIENT, FORM, GAIN, GRADIENT_GAIN, TMA,
            )  # fmt: skip
        if MASK_GRADIENT:
            columns = column + tl.arange(0, BLOCK_K)
            at = dM + (sequence * key_heads * group + h).to(tl.int64) * n_k + columns
            tl.store(at, tl.where(columns < limit, dm * (1.0 / GRADIENT_GAIN), 0.0), mask=columns < n_k)
            dm = tl.zeros([BLOCK_K], tl.float32)
    if visible.LENGTHS & RULES:
        counts = (column + tl.arange(0, BLOCK_K) < limit)[:, None]
        dk, dv = tl.where(counts, dk, 0.0), tl.where(counts, dv, 0.0)
    dk = dk * (scale / GRADIENT_GAIN)
    tiles.store(dK, dk.to(k.dtype), b, key_head, column, n_k, gk_b, gk_h, gk_n, BLOCK_K, D, D_PAD, TMA)
    tiles.store(dV, (dv * (1.0 / GAIN)).to(k.dtype), b, key_head, column, n_k, gv_b, gv_h, gv_n, BLOCK_K, D, D_PAD, TMA)


class _Prepared(NamedTuple):
    """Launchers shared by all calls of one signature. config: of the logits, the same for both kernels but for tiles.

    partial: the shape of the partial sums of the bias's gradient. weights: that of dS, or of its sums over the queries,
    for the mask's gradient.
    """

    config: launch.LaunchConfig
    partial: tuple[int, ...]
    weights: tuple[int, ...]
    dq: Launcher
    dkdv: Launcher


def backward(problem: Problem, grad: Tensor, grads: tuple[Tensor, ...], bias_gradient: bool) -> Tensor:
    """Write ``grads`` of query, key, value and, if a fourth is there, mask; return the bias's [H], or an empty tensor.

    Bitwise repeatable with and without ``problem.deterministic``: each number is summed by one program, in one order.
    Tensors whose rows are not aligned are copied.
    """
    grad_query, grad_key, grad_value, *grad_mask = grads
    key = "backward", problem.layout, layout(grad), tuple(map(layout, grads)), bias_gradient
    aligned = descriptors.is_aligned
    prepared = memoize(
        key, lambda: _prepare(problem, grad, grads, bias_gradient) if all(map(aligned, (*problem[:3], grad))) else None
    )
    if prepared is None:
        copied = descriptors.readable(problem, descriptors.aligned)
        return backward(copied, descriptors.aligned(grad), grads, bias_gradient)
    query, given = problem.query, (problem.query, problem.key, problem.value, grad)
    factors, per_sequence = (*prepared.config.factors(problem), float(problem.scale)), descriptors.per_sequence(problem)
    partial = torch.empty(prepared.partial, dtype=torch.float32, device=query.device)
    weights = torch.zeros(prepared.weights, dtype=torch.float32, device=query.device)
    prepared.dq((*given, grad_query, *per_sequence, partial, weights), *factors)
    prepared.dkdv((*given, grad_key, grad_value, *per_sequence, weights), *factors)
    for each in grad_mask:
        each.copy_(weights.sum_to_size(each.shape))
    return partial.sum((0, 2)) if bias_gradient else partial


def _prepare(problem: Problem, grad: Tensor, grads: tuple[Tensor, ...], bias_gradient: bool) -> _Prepared:
    config = launch.dq_config(problem, grad, grads[0])
    batch, heads = problem.batch, problem.query.size(1)
    query_tiles = triton.cdiv(problem.n_q, config.block_q)
    rows = 0 if len(grads) == 3 or problem.attn_mask is None else problem.attn_mask.size(2)
    return _Prepared(
        config,
        (batch, heads, query_tiles) if bias_gradient else (0,),
        (batch, heads, rows, problem.n_k) if rows else (0,),
        _dq_launcher(problem, grad, grads[0], bias_gradient, rows > 1, config, query_tiles),
        _dkdv_launcher(problem, grad, grads[1], grads[2], rows == 1),
    )


def _dq_launcher(
    problem: Problem,
    grad: Tensor,
    grad_query: Tensor,
    bias_gradient: bool,
    mask_gradient: bool,
    config: launch.LaunchConfig,
    query_tiles: int,
) -> Launcher:
    """Return the kernel that writes ``grad_query`` [B, H, N_q, D] and the partial sums of the bias's gradient."""
    query, key, value = problem[:3]
    heads, pairs, bq, bk = query.size(1), problem.batch * query.size(1), config.block_q, config.block_k
    numbers = (
        *descriptors.strides(config.tma, (query, key, value, grad, grad_query)), *descriptors.bias_strides(problem),
        *descriptors.mask_strides(problem), heads, heads // key.size(1), problem.n_q, problem.n_k, problem.reach,
        problem.reach_ahead, pairs, query_tiles, launch.heads_together(key, problem.is_causal),
    )  # fmt: skip
    operands = descriptors.operands(config.tma, config.d_pad, (bq, bk, bk, bq, bq), pointers=8)
    constants = {
        "BIAS_GRADIENT": bias_gradient, "MASK_GRADIENT": mask_gradient, "GRADIENT_GAIN": config.gradient_gain,
        **config.constants(problem),
    }  # fmt: skip
    return Launcher(bwd_dq_kernel, (pairs * query_tiles,), operands, numbers, constants)


def _dkdv_launcher(
    problem: Problem, grad: Tensor, grad_key: Tensor, grad_value: Tensor, mask_gradient: bool
) -> Launcher:
    """Return the kernel that writes ``grad_key`` and ``grad_value`` [B, H_k, N_k, D]."""
    query, key, value = problem[:3]
    config = launch.dkdv_config(problem, grad, grad_key, grad_value)
    heads, pairs, bq, bk = key.size(1), problem.batch * key.size(1), config.block_q, config.block_k
    key_tiles = triton.cdiv(problem.n_k, bk)
    tensors = (query, key, value, grad, grad_key, grad_value)
    numbers = (
        *descriptors.strides(config.tma, tensors), *descriptors.bias_strides(problem),
        *descriptors.mask_strides(problem), heads, query.size(1) // heads, problem.n_q, problem.n_k, problem.reach,
        problem.reach_ahead, pairs, key_tiles, launch.heads_together(query, problem.is_causal),
    )  # fmt: skip
    operands = descriptors.operands(config.tma, config.d_pad, (bq, bk, bk, bq, bk, bk), pointers=7)
    constants = {"MASK_GRADIENT": mask_gradient, "GRADIENT_GAIN": config.gradient_gain, **config.constants(problem)}
    return Launcher(bwd_dkdv_kernel, (pairs * key_tiles,), operands, numbers, constants)
