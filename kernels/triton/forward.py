# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The forward kernel of the triton backend.

Q, O [B, H, n_q, D]; K, V [B, H / group, n_k, D]; bias [B, H] and mask [B, H, n_q, n_k] by strides;
slopes [H]; sums [B·H, tiles] float32.
One program computes one tile of BLOCK_Q queries of one head; q [BLOCK_Q, D_PAD], k and v [BLOCK_K, D_PAD].
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import device
from ..auxiliary import Measure
from ..cache import layout, memoize
from ..launching import descriptors
from ..launching.launcher import Launcher
from ..problem import Problem
from . import launch, tiles, visible


@triton.jit
def _accumulate(
    acc, q, K, V, mask, b, h, start, stop, row, n_k, limit, window, shift, slope,
    k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    MASK: tl.constexpr, ALIBI: tl.constexpr, FORM: tl.constexpr, GAIN: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Add GAIN·sigmoid(z + b) v to acc over keys start .. stop; keys past n_k are zero in V and add nothing."""
    rows = row + tl.arange(0, BLOCK_Q)[:, None]
    for column in range(start, stop, BLOCK_K):
        column = tl.multiple_of(column, BLOCK_K)
        columns = column + tl.arange(0, BLOCK_K)[None, :]
        k = tiles.load(K, b, h, column, n_k, k_b, k_h, k_n, BLOCK_K, D, D_PAD, TMA)
        s = tl.dot(q, k.T, input_precision="ieee")
        m = visible.load_mask(mask, rows, columns, n_k, m_q, m_k, MASK)
        x = tiles.shifted(s, rows, columns, c_scale, shift, slope, ALIBI)
        p = tiles.weight(visible.add_mask(x, m, factor, MASK), FORM, GAIN)
        p = visible.apply_mask(p, rows, columns, limit, window, m, MASK)
        v = tiles.load(V, b, h, column, n_k, v_b, v_h, v_n, BLOCK_K, D, D_PAD, TMA)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["n_q", "n_k", "pairs", "query_tiles", "together", "window", "ahead", "bias_b", "bias_h"])
def forward_kernel(
    Q, K, V, O, bias, slopes, mask, lengths, q_starts, k_starts, sums,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, bias_b, bias_h, m_b, m_h, m_q, m_k,
    heads, group, n_q, n_k, window, ahead, pairs, query_tiles, together,
    c_scale, c_bias, factor,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    RULES: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, SUMS: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, TMA: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """O[i] = Σ_j sigmoid(scale·q_i·k_j + b) v_j over the valid keys; grid (B·H·query_tiles,).

    EARLY: the next kernel may begin when all programs have; it waits before it reads what they write.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    window = (window, ahead)
    pair, tile = tiles.tile_of_program(tl.program_id(0), query_tiles, pairs, together, visible.CAUSAL & RULES)
    b, h = pair // heads, pair % heads
    shift, slope = tiles.head_terms(bias, slopes, b, h, heads, bias_b, bias_h, c_bias, factor, HAS_BIAS, ALIBI)
    b, first_q, n_q, first_k, n_k, limit = visible.sequence(b, n_q, n_k, lengths, q_starts, k_starts, RULES)
    Q, O = visible.begin(Q, first_q, q_n, RULES), visible.begin(O, first_q, o_n, RULES)
    K, V = visible.begin(K, first_k, k_n, RULES), visible.begin(V, first_k, v_n, RULES)
    first = tile * BLOCK_Q
    row = first + n_k - n_q
    mask = visible.mask_of_head(mask, b, h, n_k - n_q, m_b, m_h, m_q, RULES)
    q = tiles.load(Q, b, h, first, n_q, q_b, q_h, q_n, BLOCK_Q, D, D_PAD, TMA)
    acc = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
    edges = visible.keys_of(row, limit, window, BLOCK_Q, BLOCK_K, RULES)
    if visible.WINDOW & RULES:
        acc = _accumulate(
            acc, q, K, V, mask, b, h // group, edges[0], edges[1], row, n_k, limit, window, shift, slope,
            k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
            RULES, ALIBI, FORM, GAIN, TMA,
        )  # fmt: skip
    acc = _accumulate(
        acc, q, K, V, mask, b, h // group, edges[1], edges[2], row, n_k, limit, window, shift, slope,
        k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
        visible.TENSOR & RULES, ALIBI, FORM, GAIN, TMA,
    )  # fmt: skip
    if (visible.CAUSAL | visible.WINDOW | visible.LENGTHS) & RULES:
        acc = _accumulate(
            acc, q, K, V, mask, b, h // group, edges[2], edges[3], row, n_k, limit, window, shift, slope,
            k_b, k_h, k_n, v_b, v_h, v_n, m_q, m_k, c_scale, factor, D, D_PAD, BLOCK_Q, BLOCK_K,
            RULES, ALIBI, FORM, GAIN, TMA,
        )  # fmt: skip
    o = (acc * (1.0 / GAIN)).to(q.dtype)
    tiles.store(O, o, b, h, first, n_q, o_b, o_h, o_n, BLOCK_Q, D, D_PAD, TMA)
    if SUMS:
        inside = (first + tl.arange(0, BLOCK_Q) < n_q)[:, None]
        o32 = tl.where(inside, o.to(tl.float32), 0.0)
        tl.store(sums + pair * query_tiles + tile, tl.sum(o32 * o32))


class _Prepared(NamedTuple):
    """The launcher shared by all calls of one signature. sums: the shape of the partial sums of Σ out²."""

    config: launch.LaunchConfig
    sums: tuple[int, ...]
    launcher: Launcher


def forward(problem: Problem, output: Tensor, measure: Measure | None) -> Tensor:
    """Write ``output`` [B, H, N_q, D] and return what ``measure`` makes of Σ out², or an empty tensor without it.

    Tensors whose rows are not aligned are copied.
    """
    with_sums = measure is not None
    key = "forward", problem.layout, layout(output), with_sums, launch.sigmoid_form(problem, "forward")
    aligned = descriptors.is_aligned
    prepared = memoize(key, lambda: _prepare(problem, output, with_sums) if all(map(aligned, problem[:3])) else None)
    if prepared is None:
        return forward(descriptors.readable(problem, descriptors.aligned), output, measure)
    query, finish = problem.query, None if measure is None else measure(problem)
    sums = torch.empty(prepared.sums, dtype=torch.float32, device=query.device)
    tensors = (query, problem.key, problem.value, output, *descriptors.per_sequence(problem), sums)
    prepared.launcher(tensors, *prepared.config.factors(problem))
    return sums if finish is None else finish(sums)


def _prepare(problem: Problem, output: Tensor, with_sums: bool) -> _Prepared:
    query, key, value = problem[:3]
    config = launch.forward_config(problem, output)
    batch, heads, bq, bk = problem.batch, query.size(1), config.block_q, config.block_k
    query_tiles = triton.cdiv(problem.n_q, bq)
    numbers = (
        *descriptors.strides(config.tma, (query, key, value, output)), *descriptors.bias_strides(problem),
        *descriptors.mask_strides(problem), heads, heads // key.size(1), problem.n_q, problem.n_k, problem.reach,
        problem.reach_ahead, batch * heads, query_tiles, launch.heads_together(key, problem.is_causal),
    )  # fmt: skip
    operands = descriptors.operands(config.tma, config.d_pad, (bq, bk, bk, bq), pointers=7)
    early = with_sums and device.overlaps(query.device)
    constants = {"SUMS": with_sums, "EARLY": early, **config.constants(problem)}
    launcher = Launcher(forward_kernel, (batch * heads * query_tiles,), operands, numbers, constants)
    return _Prepared(config, (batch, heads, query_tiles) if with_sums else (0,), launcher)
