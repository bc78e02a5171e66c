# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The split-key forward of the triton backend, for grids too small to fill the device, such as decoding.

Q, O [B, H, n_q, D]; K, V [B, H / GROUP, n_k, D]; bias [B, H] by strides; slopes [H] or [B, H]; mask by strides;
lengths [B]; table [B, n_k / PAGE], with which K and V are pages of a cache [pages, H / GROUP, PAGE, D];
sums [B, H, n_q] and partial [B·H / GROUP, tiles, splits, ROWS, D] float32; arrived [B·H / GROUP·tiles] int32.

The GROUP query heads that share a key head are packed into one tile, row r holding query r // GROUP of head
r % GROUP, so each key and value is read once for all of them. No row is normalised, so outputs over disjoint keys
simply add: each program writes its partial output in float32, and the last program of a tile (atomic counter) adds them
in the order of the keys. The result has the same bits in every run.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import device
from ..auxiliary import Measure
from ..cache import layout, memoize
from ..launching import completion_counters, descriptors
from ..launching.launcher import Launcher
from ..problem import Problem
from . import launch, splitting, tiles, visible


@triton.jit
def _visible_keys(first, last, limit, window, BLOCK_K: tl.constexpr, RULES: tl.constexpr):
    """Return the range of keys that queries at positions first .. last see; its start is a multiple of BLOCK_K."""
    start, stop = 0, limit
    if visible.CAUSAL & RULES:
        stop = tl.minimum(stop, last + 1)
    elif visible.WINDOW & RULES:
        stop = tl.minimum(stop, last + window[1])
    if visible.WINDOW & RULES:
        start = tl.maximum(0, first - window[0] + 1) // BLOCK_K * BLOCK_K
    return start, tl.maximum(start, stop)


@triton.jit
def _row_pointers(x, b, h, i, s_b, s_h, s_n, D_PAD: tl.constexpr):
    """Return pointers [BLOCK_Q, D_PAD] to query i of head h of sequence b; i and h are [BLOCK_Q]."""
    rows = h.to(tl.int64) * s_h + i.to(tl.int64) * s_n
    return x + b.to(tl.int64) * s_b + rows[:, None] + tl.arange(0, D_PAD)[None, :]


@triton.jit
def _pages(table, b, column, stop, n_k, BLOCK: tl.constexpr, PAGE: tl.constexpr):
    """Return the page that a tile of keys lies in, or that of each of its keys [BLOCK]; b without pages."""
    if PAGE == 0:
        return b
    elif PAGE % BLOCK == 0:
        return tl.load(table + b * (n_k // PAGE) + column // PAGE)
    else:
        rows = column + tl.arange(0, BLOCK)
        return tl.load(table + b * (n_k // PAGE) + rows // PAGE, mask=rows < stop, other=0)


@triton.jit
def _keys(
    x, pages, h, column, stop, s_b, s_h, s_n,
    BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Return rows ``column`` .. ``column + BLOCK`` of a sequence, [BLOCK, D_PAD], from its ``pages``."""
    if PAGE == 0:
        return tiles.load(x, pages, h, column, stop, s_b, s_h, s_n, BLOCK, D, D_PAD, False)
    elif PAGE % BLOCK == 0:
        first = tl.multiple_of(column % PAGE, BLOCK)
        return tiles.load(x, pages, h, first, first + stop - column, s_b, s_h, s_n, BLOCK, D, D_PAD, False)
    else:
        step: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
        rows = column + tl.arange(0, BLOCK)
        start = pages.to(tl.int64) * tl.multiple_of(s_b, step) + (rows % PAGE) * tl.multiple_of(s_n, step)
        head = x + h.to(tl.int64) * tl.multiple_of(s_h, step)
        known = (rows < stop)[:, None] & (tl.arange(0, D_PAD) < D)[None, :]
        return tl.load(head + start[:, None] + tl.arange(0, D_PAD)[None, :], mask=known, other=0.0)


@triton.jit
def _finish(
    acc, O, sums, b, h, i, inside, known, heads, n_q, o_b, o_h, o_n,
    D_PAD: tl.constexpr, GAIN: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Write the output of a tile, and Σ out² of each of its rows."""
    o = (acc * (1.0 / GAIN)).to(O.dtype.element_ty)
    tl.store(_row_pointers(O, b, h, i, o_b, o_h, o_n, D_PAD), o, mask=known)
    if SUMS:
        o32 = o.to(tl.float32)
        tl.store(sums + (b * heads + h).to(tl.int64) * n_q + i, tl.sum(o32 * o32, 1), mask=inside)


@triton.jit(do_not_specialize=["n_q", "n_k", "window", "ahead", "chunk", "splits", "bias_b", "bias_h"])
def split_kernel(
    Q, K, V, O, bias, slopes, mask, lengths, sums, partial, arrived, table,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, o_b, o_h, o_n, bias_b, bias_h, m_b, m_h, m_q, m_k,
    key_heads, n_q, n_k, window, ahead, chunk, splits,
    c_scale, c_bias, factor,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, ONE: tl.constexpr,
    RULES: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, SUMS: tl.constexpr,
    FORM: tl.constexpr, GAIN: tl.constexpr, EARLY: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """O[i] = Σ_j sigmoid(scale·q_i·k_j + b) v_j over the valid keys; grid (splits, B·H / GROUP, tiles).

    ONE: one program reads all keys of a tile. EARLY: the next kernel may begin when all programs have; it waits before
    it reads what they write. PAGE: keys of a page of the cache, 0 without pages.
    """
    if EARLY:
        tl.extra.cuda.gdc_launch_dependents()
    window = (window, ahead)
    split, pair = tl.program_id(0), tl.program_id(1)
    tile = tl.num_programs(2) - 1 - tl.program_id(2)  # causal tiles with many keys first
    b, key_head = pair // key_heads, pair % key_heads
    index = tl.arange(0, BLOCK_Q)
    i = (tile * BLOCK_Q + index) // GROUP
    h = key_head * GROUP + (tile * BLOCK_Q + index) % GROUP
    inside = (index < ROWS) & (i < n_q)
    known = inside[:, None] & (tl.arange(0, D_PAD) < D)[None, :]
    limit = n_k
    if visible.LENGTHS & RULES:
        limit = tl.maximum(0, tl.minimum(tl.load(lengths + b), n_k)).to(tl.int32)
    offset = n_k - n_q
    if visible.CACHED & RULES:
        offset = limit - n_q
    first = tile * BLOCK_Q // GROUP
    last = tl.minimum(n_q - 1, (tile * BLOCK_Q + BLOCK_Q - 1) // GROUP)
    start, stop = _visible_keys(first + offset, last + offset, limit, window, BLOCK_K, RULES)
    needed = tl.maximum(1, tl.cdiv(stop - start, chunk))
    if split >= needed:
        return
    start += split * chunk
    stop = tl.minimum(start + chunk, stop)

    q = tl.load(_row_pointers(Q, b, h, i, q_b, q_h, q_n, D_PAD), mask=known, other=0.0)
    shift = tl.zeros([BLOCK_Q], tl.float32) + c_bias
    if HAS_BIAS:
        shift = tl.load(bias + b * bias_b + h * bias_h, mask=inside, other=0.0) * factor
    slope = tl.zeros([BLOCK_Q], tl.float32)
    if ALIBI == 2:
        slope = -factor * tl.load(slopes + b * (key_heads * GROUP) + h, mask=inside, other=0.0)
    elif ALIBI:
        slope = -factor * tl.load(slopes + h, mask=inside, other=0.0)
    rows = (i + offset)[:, None]
    mask = visible.mask_of_head(mask, b, key_head * GROUP, offset, m_b, m_h, m_q, RULES)
    if visible.PAIRS & RULES:
        mask += ((tile * BLOCK_Q + index) % GROUP).to(tl.int64)[:, None] * m_h
    acc = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
    for column in range(start, stop, BLOCK_K):
        column = tl.multiple_of(column, BLOCK_K)
        columns = column + tl.arange(0, BLOCK_K)[None, :]
        pages = _pages(table, b, column, stop, n_k, BLOCK_K, PAGE)
        k = _keys(K, pages, key_head, column, stop, k_b, k_h, k_n, BLOCK_K, D, D_PAD, PAGE)
        s = tl.dot(q, k.T, input_precision="ieee")
        m = visible.load_mask(mask, rows, columns, n_k, m_q, m_k, RULES)
        x = tiles.shifted(s, rows, columns, c_scale, shift[:, None], slope[:, None], ALIBI)
        p = tiles.weight(visible.add_mask(x, m, factor, RULES), FORM, GAIN)
        p = visible.apply_mask(p, rows, columns, limit, window, m, RULES)
        v = _keys(V, pages, key_head, column, stop, v_b, v_h, v_n, BLOCK_K, D, D_PAD, PAGE)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision="ieee")

    heads = key_heads * GROUP
    if ONE:
        _finish(acc, O, sums, b, h, i, inside, known, heads, n_q, o_b, o_h, o_n, D_PAD, GAIN, SUMS)
    else:
        unit = pair * tl.num_programs(2) + tile
        parts = partial + (unit * splits).to(tl.int64) * (ROWS * D)
        at = index[:, None] * D + tl.arange(0, D_PAD)[None, :]
        tl.store(parts + split * (ROWS * D) + at, acc, mask=known)
        tl.debug_barrier()
        if tl.atomic_add(arrived + unit, 1, sem="acq_rel", scope="gpu") == needed - 1:
            tl.store(arrived + unit, 0)
            total = tl.zeros([BLOCK_Q, D_PAD], tl.float32)
            for part in range(needed):
                total += tl.load(parts + part * (ROWS * D) + at, mask=known, other=0.0, cache_modifier=".cg")
            _finish(total, O, sums, b, h, i, inside, known, heads, n_q, o_b, o_h, o_n, D_PAD, GAIN, SUMS)


class _Prepared(NamedTuple):
    """Values that all calls of one signature share: shapes of sums and partial outputs, number of counters."""

    config: launch.LaunchConfig
    sums: tuple[int, ...]
    partial: int
    counters: int
    launcher: Launcher


def forward(problem: Problem, output: Tensor, measure: Measure | None, splits: int | None = None) -> Tensor:
    """Write ``output`` [B, H, N_q, D] and return what ``measure`` makes of Σ out², or an empty tensor without it.

    Tensors whose rows are not aligned are copied; packed sequences are not taken.
    splits: programs over the keys of a tile, to be measured; None for what ``splitting`` chooses.
    """
    with_sums = measure is not None
    key = "split forward", problem.layout, layout(output), with_sums, launch.sigmoid_form(problem, "forward"), splits
    aligned = descriptors.is_aligned
    prepared = memoize(
        key, lambda: _prepare(problem, output, with_sums, splits) if all(map(aligned, problem[:3])) else None
    )
    if prepared is None:
        return forward(descriptors.readable(problem, descriptors.aligned), output, measure, splits)
    query, finish = problem.query, None if measure is None else measure(problem)
    sums = torch.empty(prepared.sums, dtype=torch.float32, device=query.device)
    partial = torch.empty(prepared.partial, dtype=torch.float32, device=query.device)
    arrived = completion_counters.counters(query.device, prepared.counters, "split forward")
    tensors = (
        query,
        problem.key,
        problem.value,
        output,
        *descriptors.per_sequence(problem)[:4],
        sums,
        partial,
        arrived,
        problem.page_table,
    )
    prepared.launcher(tensors, *prepared.config.factors(problem))
    return sums if finish is None else finish(sums)


def _prepare(problem: Problem, output: Tensor, with_sums: bool, splits: int | None) -> _Prepared:
    query, key, value = problem[:3]
    batch, heads, n_q, dim = query.shape
    key_heads = key.size(1)
    config = launch.split_config(problem)
    cut = splitting.cut(problem, config.block_q, config.block_k, splits)
    rows = min(config.block_q, heads // key_heads * n_q)
    numbers = (
        *descriptors.strides(False, (query, key, value, output)), *descriptors.bias_strides(problem),
        *descriptors.mask_strides(problem), key_heads, n_q, problem.n_k, problem.reach, problem.reach_ahead,
        cut.chunk, cut.splits,
    )  # fmt: skip
    constants = config.constants(problem) | {
        "GROUP": heads // key_heads, "ROWS": rows, "ONE": cut.splits == 1, "SUMS": with_sums,
        "PAGE": 0 if problem.page_table is None else key.size(2),
        "EARLY": with_sums and device.overlaps(query.device), "RULES": launch.rules(problem, heads // key_heads),
    }  # fmt: skip
    del constants["TMA"]
    units = batch * key_heads * cut.tiles
    partial = 0 if cut.splits == 1 else units * cut.splits * rows * dim
    launcher = Launcher(split_kernel, (cut.splits, batch * key_heads, cut.tiles), [None] * 12, numbers, constants)
    return _Prepared(config, (batch, heads, n_q) if with_sums else (0,), partial, units, launcher)
