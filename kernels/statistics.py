# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The kernel that measures logits and weights over sampled query rows, apart from the forward.

Q [B, H, n_q, D]; K [B, H_k, n_k, D]; bias [B, H] by strides; slopes [H]; partial [S·H, row_tiles, splits, 8] float32,
columns: row mass, rows, Σ z, Σ z², pairs, saturated, dead, max z. Row r of ``count`` is query
floor((r + offset)·n_q / count), exactly.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import descriptors, launch, tiles, visible
from .auxiliary import OFFSET_STEPS
from .launcher import Launcher
from .metadata import known
from .problem import Problem
from .reference import DEAD

NEGATIVE_LOG2E = tl.constexpr(-1.4426950408889634)


@triton.jit
def _sequence_of(s, batch, sequences, offset_steps, STEPS: tl.constexpr):
    """Return the s-th sampled sequence, floor((s + offset)·batch / sequences)."""
    return (s.to(tl.int64) * STEPS + offset_steps) * batch // (tl.full([], STEPS, tl.int64) * sequences)


@triton.jit(
    do_not_specialize=[
        "n_q", "n_k", "window", "batch", "sequences", "count", "offset_steps", "split_keys", "splits",
        "bias_b", "bias_h",
    ]
)  # fmt: skip
def statistics_kernel(
    Q, K, bias, slopes, lengths, q_starts, k_starts, partial,
    q_b, q_h, q_n, k_b, k_h, k_n, bias_b, bias_h,
    heads, group, n_q, n_k, window, batch, sequences, count, split_keys, splits,
    offset_steps, scale, c_bias, dead,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, STEPS: tl.constexpr,
    RULES: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    """Measure BLOCK_Q sampled rows against one stretch of keys; grid (S·H, row_tiles, splits). All parts add."""
    pair, row_tile, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    b, h = _sequence_of(pair // heads, batch, sequences, offset_steps, STEPS).to(tl.int32), pair % heads
    shift, slope = tiles.head_terms(bias, slopes, b, h, bias_b, bias_h, c_bias, 1.0, HAS_BIAS, ALIBI)
    b, first_q, n_q, first_k, n_k, length = visible.sequence(b, n_q, n_k, lengths, q_starts, k_starts, RULES)
    Q, K = visible.begin(Q, first_q, q_n, RULES), visible.begin(K, first_k, k_n, RULES)
    count = tl.minimum(count, n_q)
    index = row_tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    strata = (tl.zeros([BLOCK_Q], tl.int64) + tl.maximum(count, 1)) * STEPS
    sampled = (index.to(tl.int64) * STEPS + offset_steps) * n_q // strata
    rows = sampled + n_k - n_q
    lowest = tl.full([BLOCK_Q], 0, tl.int64)
    limit = lowest + length
    if visible.CAUSAL & RULES:
        limit = tl.minimum(limit, rows + 1)
    if visible.WINDOW & RULES:
        lowest = tl.maximum(lowest, rows - window + 1)
        if not (visible.CAUSAL & RULES):
            limit = tl.minimum(limit, rows + window)
    limit = tl.where(index < count, tl.maximum(limit, lowest), lowest)
    features = tl.arange(0, D_PAD)
    inside = (index < count)[:, None] & (features < D)[None, :]
    start = Q + b.to(tl.int64) * q_b + h.to(tl.int64) * q_h
    q = tl.load(start + sampled[:, None] * q_n + features[None, :], mask=inside, other=0.0)
    zero = tl.zeros([BLOCK_Q], tl.float32)
    mass, total, squares, saturated, pale = zero, zero, zero, zero, zero
    largest = zero - float("inf")
    threshold = dead / tl.maximum(limit - lowest, 1).to(tl.float32)
    first = split * split_keys
    for column in range(first, tl.minimum(first + split_keys, n_k), BLOCK_K):
        column = tl.multiple_of(column, BLOCK_K)
        columns = column + tl.arange(0, BLOCK_K)[None, :]
        valid = columns < limit[:, None]
        if visible.WINDOW & RULES:
            valid = valid & (columns >= lowest[:, None])
        k = tiles.load(K, b, h // group, column, n_k, k_b, k_h, k_n, BLOCK_K, D, D_PAD, False)
        s = tl.dot(q, k.T, input_precision="ieee")
        z = tiles.shifted(s, rows[:, None], columns, scale, 0.0, slope, ALIBI)
        y = z + shift
        w = tiles.weight(y * NEGATIVE_LOG2E, FORM, 1.0)
        known = tl.where(valid, z, 0.0)
        mass += tl.sum(tl.where(valid, w, 0.0), 1)
        total += tl.sum(known, 1)
        squares += tl.sum(known * known, 1)
        saturated += tl.sum((valid & (y > 0)).to(tl.float32), 1)
        pale += tl.sum((valid & (w < threshold[:, None])).to(tl.float32), 1)
        largest = tl.maximum(largest, tl.max(tl.where(valid, z, float("-inf")), 1))
    pairs_seen = tl.maximum(0, tl.minimum(limit, first + split_keys) - tl.maximum(lowest, first)).to(tl.float32)
    rows_seen = tl.where(split == 0, 1.0, 0.0) * (limit > lowest).to(tl.float32)
    out = partial + ((pair * tl.num_programs(1) + row_tile) * splits + split).to(tl.int64) * 8
    tl.store(out, tl.sum(mass))
    tl.store(out + 1, tl.sum(rows_seen))
    total_logit, largest_logit = tl.sum(total), tl.max(largest)
    tl.store(out + 2, total_logit)
    tl.store(out + 3, tl.sum(squares))
    tl.store(out + 4, tl.sum(pairs_seen))
    tl.store(out + 5, tl.sum(saturated))
    tl.store(out + 6, tl.sum(pale))
    # A maximum passes over NaN; the sum does not.
    unknown = (total_logit != total_logit) & (largest_logit < float("inf"))
    tl.store(out + 7, tl.where(unknown, total_logit, largest_logit))


@triton.jit(do_not_specialize=["heads", "batch", "sequences", "parts", "offset_steps"])
def finish_kernel(
    partial, sums, out, heads, batch, sequences, parts, offset_steps, BLOCK: tl.constexpr, STEPS: tl.constexpr
):
    """Add the parts of one head and put the output's sum of squares before them; grid (B·H,).

    Sequence b can only be the s-th or the one after it that is sampled; if it is neither, nothing is added.
    """
    b, h = tl.program_id(0) // heads, tl.program_id(0) % heads
    s = (b.to(tl.int64) * sequences // batch).to(tl.int32)
    s += (_sequence_of(s, batch, sequences, offset_steps, STEPS) < b).to(tl.int32)
    sampled = (s < sequences) & (_sequence_of(s, batch, sequences, offset_steps, STEPS) == b)
    pair = s * heads + h
    parts = tl.where(sampled, parts, 0)
    columns = tl.arange(0, 8)[None, :]
    total = tl.zeros([BLOCK, 8], tl.float32)
    largest = tl.full([BLOCK, 8], float("-inf"), tl.float32)
    for first in range(0, parts, BLOCK):
        inside = (first + tl.arange(0, BLOCK) < parts)[:, None]
        at = partial + ((pair * parts + first).to(tl.int64) + tl.arange(0, BLOCK)[:, None]) * 8 + columns
        part = tl.load(at, mask=inside, other=0.0)
        total += part
        largest = tl.maximum(largest, tl.where(inside, part, float("-inf")), propagate_nan=tl.PropagateNan.ALL)
    added = tl.sum(total, 0)
    unknown = tl.sum((largest != largest).to(tl.int32), 0) > 0
    result = tl.where(tl.arange(0, 8) < 7, added, tl.where(unknown, float("nan"), tl.max(largest, 0)))
    row = tl.program_id(0)
    tl.store(out + row * 9, tl.load(sums + row))
    tl.store(out + row * 9 + 1 + tl.arange(0, 8), result)


class _Ready(NamedTuple):
    """What is the same for all calls that look alike. partial: the shape of what the first kernel leaves the second."""

    partial: tuple[int, ...]
    measure: Launcher
    finish: Launcher


def row_statistics(problem: Problem, sums: Tensor, rows: int, offset: float, sequences: int) -> Tensor:
    """Return ``STATISTICS`` [B, H, 9] float32 of ``rows`` query rows of each of ``sequences`` sampled sequences.

    sums: Σ out² [B, H], the first column. Tensors whose rows are not aligned are copied.
    """
    aligned = descriptors.is_aligned
    ready = known(
        ("statistics", problem.layout, rows, sequences),
        lambda: _ready(problem, rows, sequences) if all(map(aligned, problem[:2])) else None,
    )
    if ready is None:
        return row_statistics(descriptors.readable(problem, descriptors.aligned), sums, rows, offset, sequences)
    query, offset_steps = problem.query, int(offset * OFFSET_STEPS)
    partial = torch.empty(ready.partial, dtype=torch.float32, device=query.device)
    tensors = (query, problem.key, *descriptors.per_sequence(problem), partial)
    ready.measure(tensors, offset_steps, float(problem.scale), float(problem.bias_value), DEAD)
    measured = torch.empty((problem.batch, query.size(1), 9), dtype=torch.float32, device=query.device)
    ready.finish((partial, sums, measured), offset_steps)
    return measured


def _ready(problem: Problem, rows: int, sequences: int) -> _Ready:
    query, key = problem.query, problem.key
    batch, heads = problem.batch, query.size(1)
    count, sequences = min(rows, problem.n_q), min(sequences, batch)
    plan = launch.statistics_plan(problem, count)
    row_tiles = triton.cdiv(count, plan.block_q)
    split_keys = launch.split_keys(plan)
    splits = triton.cdiv(problem.n_k, split_keys)
    numbers = (
        *query.stride()[:3], *key.stride()[:3], *descriptors.bias_strides(problem), heads, heads // key.size(1),
        problem.n_q, problem.n_k, problem.window or 0, batch, sequences, count, split_keys, splits,
    )  # fmt: skip
    constants = {
        "D": query.size(3), "D_PAD": plan.d_pad, "BLOCK_Q": plan.block_q, "BLOCK_K": plan.block_k,
        "STEPS": OFFSET_STEPS, "FORM": plan.form, "RULES": launch.rules(problem), "HAS_BIAS": problem.bias is not None,
        "ALIBI": problem.alibi_slopes is not None, **plan.options,
    }  # fmt: skip
    finish = {"BLOCK": 32, "STEPS": OFFSET_STEPS, "num_warps": 1}
    return _Ready(
        (sequences, heads, row_tiles * splits, 8),
        Launcher(statistics_kernel, (sequences * heads, row_tiles, splits), [None] * 8, numbers, constants),
        Launcher(finish_kernel, (batch * heads,), [None] * 3, (heads, batch, sequences, row_tiles * splits), finish),
    )
