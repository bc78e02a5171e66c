# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The statistics kernels: sums of outputs, and measures of logits and weights over sampled query rows.

Q [B, H, n_q, D]; K [B, H_k, n_k, D]; bias [B, H] and mask by strides; slopes [H];
valid [B, H, count] int32, the keys that a sampled row sees, where there is a mask;
sums [B, H, sum_parts], out [B, H, 9] float32;
partial [S·H, row_tiles, splits, 8] float32, columns: row mass, rows, Σ z, Σ z², pairs, saturated, dead, max z;
arrived [S·H] int32, zeros before and after. Row r of ``count`` is query floor((r + offset)·n_q / count), exactly.
EARLY: the kernel may begin while the forward runs, so it waits for the forward's end before it reads ``sums``, the only
input that the forward writes. What it writes before that must not be memory that the forward reads.
"""

import triton
import triton.language as tl

from . import tiles, visible

NEGATIVE_LOG2E = tl.constexpr(-1.4426950408889634)


@triton.jit
def _sample(index, length, count, offset_steps, STEPS: tl.constexpr):
    """Return floor((index + offset_steps / STEPS)·length / count) in index's type, which must hold count² + length.

    Divisions in 64 bits are slow: with 32, 16 rows take a tenth of the time that a key takes to arrive.
    """
    offset = ((tl.full([], 0, tl.int64) + length) * offset_steps // STEPS).to(tl.int32)
    whole = length // count
    return index * whole + (index * (length - whole * count) + offset) // count


@triton.jit
def _edges(first, end, n_q, n_k, length, window, count, offset_steps, STEPS: tl.constexpr, RULES: tl.constexpr):
    """Return the edges start .. stop of the keys that sampled rows first .. end see; none if there is no row."""
    start, stop = 0, length
    if (visible.CAUSAL | visible.WINDOW) & RULES:
        after = _sample(end - 1, n_q, count, offset_steps, STEPS) + n_k - n_q + 1
        if not (visible.CAUSAL & RULES):
            after += window[1] - 1
        stop = tl.minimum(stop, after)
    if visible.WINDOW & RULES:
        start = _sample(first, n_q, count, offset_steps, STEPS) + n_k - n_q - window[0] + 1
    return start, tl.where(first < end, stop, 0)


@triton.jit
def _add(
    sums, q, k, mask, column, rows, lowest, limit, n_k, threshold, m_q, m_k, scale, shift, slope,
    RULES: tl.constexpr, ALIBI: tl.constexpr, FORM: tl.constexpr,
):  # fmt: skip
    """Add the measures over keys k, which begin at ``column``, to ``sums``, each [BLOCK_Q]."""
    mass, total, squares, saturated, dead_weights, largest = sums
    columns = column + tl.arange(0, k.shape[0])[None, :]
    valid = columns < limit[:, None]
    if visible.WINDOW & RULES:
        valid = valid & (columns >= lowest[:, None])
    m = visible.load_mask(mask, rows[:, None], columns, n_k, m_q, m_k, RULES)
    if visible.MASK & RULES:
        valid = valid & ~visible.hidden_by(m, RULES)
    s = tl.dot(q, k.T, input_precision="ieee")
    z = visible.add_mask(tiles.shifted(s, rows[:, None], columns, scale, 0.0, slope, ALIBI), m, 1.0, RULES)
    y = z + shift
    w = tiles.weight(y * NEGATIVE_LOG2E, FORM, 1.0)
    known = tl.where(valid, z, 0.0)
    mass += tl.sum(tl.where(valid, w, 0.0), 1)
    total += tl.sum(known, 1)
    squares += tl.sum(known * known, 1)
    saturated += tl.sum((valid & (y > 0)).to(tl.float32), 1)
    dead_weights += tl.sum((valid & (w < threshold[:, None])).to(tl.float32), 1)
    largest = tl.maximum(largest, tl.max(tl.where(valid, z, float("-inf")), 1))
    return mass, total, squares, saturated, dead_weights, largest


@triton.jit
def _finish(partial, out, parts, BLOCK: tl.constexpr):
    """Add ``parts`` partial sums of a head in their order and store all of its row of ``out`` but the first column."""
    columns = tl.arange(0, 8)
    total = tl.zeros([BLOCK, 8], tl.float32)
    largest = tl.full([BLOCK, 8], float("-inf"), tl.float32)
    for first in tl.range(0, parts, BLOCK, num_stages=1):
        index = first + tl.arange(0, BLOCK)[:, None]
        part = tl.load(partial + index * 8 + columns[None, :], mask=index < parts, other=0.0)
        total += part
        largest = tl.maximum(largest, tl.where(index < parts, part, float("-inf")), propagate_nan=tl.PropagateNan.ALL)
    unknown = tl.sum((largest != largest).to(tl.int32), 0) > 0
    most = tl.where(unknown, float("nan"), tl.max(largest, 0))
    tl.store(out + 1 + columns, tl.where(columns < 7, tl.sum(total, 0), most))


@triton.jit
def _total(sums, out, row, parts, BLOCK: tl.constexpr):
    """Add ``parts`` partial sums of an output and store the first column of ``row`` of ``out``."""
    total = tl.zeros([BLOCK], tl.float32)
    for first in tl.range(0, parts, BLOCK, num_stages=1):
        index = first + tl.arange(0, BLOCK)
        total += tl.load(sums + row * parts + index, mask=index < parts, other=0.0)
    tl.store(out + row * 9, tl.sum(total))


@triton.jit
def _blank(out, row):
    """Store the other columns of ``row`` of ``out``, where no row of queries is sampled."""
    columns = tl.arange(0, 8)
    tl.store(out + row * 9 + 1 + columns, tl.where(columns < 7, 0.0, float("-inf")))


@triton.jit
def _distribute(
    sums, out, program, programs, heads, batch, sequences, parts, offset_steps, STEPS: tl.constexpr, BLOCK: tl.constexpr
):
    """Store the first column of every ``programs``-th row of ``out``, and the others where no sequence is sampled.

    Sequence b can only be the s-th or the one after it that is sampled.
    """
    for number in range(program, batch * heads, programs):
        row = tl.full([], 0, tl.int64) + number
        _total(sums, out, row, parts, BLOCK)
        b = row // heads
        s = b * sequences // batch
        s += _sample(s, batch, sequences, offset_steps, STEPS) < b
        if (s >= sequences) | (_sample(s, batch, sequences, offset_steps, STEPS) != b):
            _blank(out, row)


@triton.jit(do_not_specialize=["sum_parts"])
def sums_kernel(sums, out, sum_parts, EARLY: tl.constexpr):
    """Store a row of ``out`` of which nothing is sampled; grid (B·H,)."""
    row = tl.program_id(0).to(tl.int64)
    _blank(out, row)
    if EARLY:
        tl.extra.cuda.gdc_wait()
    _total(sums, out, row, sum_parts, 128)


@triton.jit(
    do_not_specialize=[
        "n_q", "n_k", "window", "ahead", "batch", "sequences", "count", "offset_steps", "splits", "sum_parts",
        "bias_b", "bias_h",
    ]
)  # fmt: skip
def statistics_kernel(
    Q, K, bias, slopes, mask, lengths, q_starts, k_starts, valid, sums, partial, arrived, out,
    q_b, q_h, q_n, k_b, k_h, k_n, bias_b, bias_h, m_b, m_h, m_q, m_k,
    heads, group, n_q, n_k, window, ahead, batch, sequences, count, splits,
    offset_steps, scale, c_bias, dead, sum_parts,
    D: tl.constexpr, D_PAD: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, SPLIT: tl.constexpr,
    STEPS: tl.constexpr, RULES: tl.constexpr, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr, FORM: tl.constexpr,
    WIDE: tl.constexpr, EARLY: tl.constexpr,
):  # fmt: skip
    """Measure BLOCK_Q sampled rows against SPLIT keys; grid (S·H, row_tiles, splits).

    The last program of a head (atomic counter) reduces its partial sums, in their order and not in that of arrival.
    Rows of sequences that are not sampled, and the outputs' sums, are distributed over the programs, the last one
    first: those that wait for the forward delay none that measure. One at least waits, so the grid does not end before
    the forward.
    """
    window = (window, ahead)
    pair, row_tile, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    integer: tl.constexpr = tl.int64 if WIDE else tl.int32
    sampled = _sample((pair // heads).to(integer), batch, sequences, offset_steps, STEPS)
    sequence, h = sampled.to(tl.int32), pair % heads
    shift, slope = tiles.head_terms(bias, slopes, sequence, h, heads, bias_b, bias_h, c_bias, 1.0, HAS_BIAS, ALIBI)
    b, first_q, n_q, first_k, n_k, length = visible.sequence(sequence, n_q, n_k, lengths, q_starts, k_starts, RULES)
    Q, K = visible.begin(Q, first_q, q_n, RULES), visible.begin(K, first_k, k_n, RULES)
    count = tl.minimum(count, n_q)
    first_row = (row_tile * BLOCK_Q).to(integer)
    index = first_row + tl.arange(0, BLOCK_Q)
    strata = tl.maximum(count, 1)
    sampled = _sample(index, n_q, strata, offset_steps, STEPS)
    rows = sampled + n_k - n_q
    lowest = tl.full([BLOCK_Q], 0, integer)
    limit = lowest + length
    if visible.CAUSAL & RULES:
        limit = tl.minimum(limit, rows + 1)
    if visible.WINDOW & RULES:
        lowest = tl.maximum(lowest, rows - window[0] + 1)
        if not (visible.CAUSAL & RULES):
            limit = tl.minimum(limit, rows + window[1])
    limit = tl.where(index < count, tl.maximum(limit, lowest), lowest)
    first = split * SPLIT
    end_row = tl.minimum(count, first_row + BLOCK_Q)
    start, stop = _edges(first_row, end_row, n_q, n_k, length, window, strata, offset_steps, STEPS, RULES)
    stop = tl.where(start < first + SPLIT, stop, 0)
    kv_head = h // group
    features = tl.arange(0, D_PAD)
    inside = (index < count)[:, None] & (features < D)[None, :]
    at = Q + b.to(tl.int64) * q_b + h.to(tl.int64) * q_h
    q = tl.load(at + sampled[:, None].to(tl.int64) * q_n + features[None, :], mask=inside)
    if SPLIT == BLOCK_K:  # no loop: keys are asked for before anything waits for queries
        k = tiles.load(K, b, kv_head, first, stop, k_b, k_h, k_n, BLOCK_K, D, D_PAD, False)
    q = tl.where(inside, q, 0.0)
    mask = visible.mask_of_head(mask, b, h, n_k - n_q, m_b, m_h, m_q, RULES)
    zero = tl.zeros([BLOCK_Q], tl.float32)
    seen = (zero, zero, zero, zero, zero, zero - float("inf"))
    keys_seen = limit - lowest
    pairs_seen = tl.maximum(0, tl.minimum(limit, first + SPLIT) - tl.maximum(lowest, first))
    if visible.MASK & RULES:  # counted before, since one program sees only a part of a row
        keys_seen = tl.load(valid + (b * heads + h).to(tl.int64) * count + index, mask=index < count, other=0)
        pairs_seen = tl.where(split == 0, keys_seen, 0)
    threshold = dead / tl.maximum(keys_seen, 1).to(tl.float32)
    if SPLIT == BLOCK_K:
        seen = _add(
            seen, q, k, mask, first, rows, lowest, limit, n_k, threshold, m_q, m_k, scale, shift, slope,
            RULES, ALIBI, FORM,
        )  # fmt: skip
    else:
        for column in range(first, tl.minimum(first + SPLIT, stop), BLOCK_K):
            column = tl.multiple_of(column, BLOCK_K)
            k = tiles.load(K, b, kv_head, column, stop, k_b, k_h, k_n, BLOCK_K, D, D_PAD, False)
            seen = _add(
                seen, q, k, mask, column, rows, lowest, limit, n_k, threshold, m_q, m_k, scale, shift, slope,
                RULES, ALIBI, FORM,
            )  # fmt: skip
    mass, total, squares, saturated, dead_weights, largest = seen
    rows_seen = tl.where(split == 0, 1.0, 0.0) * (keys_seen > 0).to(tl.float32)
    parts = tl.num_programs(1) * splits
    part = partial + (pair.to(tl.int64) * parts + row_tile * splits + split) * 8
    tl.store(part, tl.sum(mass))
    tl.store(part + 1, tl.sum(rows_seen))
    total_logit, largest_logit = tl.sum(total), tl.max(largest)
    tl.store(part + 2, total_logit)
    tl.store(part + 3, tl.sum(squares))
    tl.store(part + 4, tl.sum(pairs_seen.to(tl.float32)))
    tl.store(part + 5, tl.sum(saturated))
    tl.store(part + 6, tl.sum(dead_weights))
    # A maximum passes over NaN; the sum does not.
    unknown = (total_logit != total_logit) & (largest_logit < float("inf"))
    tl.store(part + 7, tl.where(unknown, total_logit, largest_logit))
    tl.debug_barrier()
    if tl.atomic_add(arrived + pair, 1, sem="acq_rel", scope="gpu") == parts - 1:
        tl.store(arrived + pair, 0)
        _finish(partial + pair.to(tl.int64) * parts * 8, out + (sequence * heads + h) * 9, parts, 128)
    programs = tl.num_programs(0) * parts
    program = programs - 1 - ((split * tl.num_programs(1) + row_tile) * tl.num_programs(0) + pair)
    if program < batch * heads:
        if EARLY:
            tl.extra.cuda.gdc_wait()
        _distribute(sums, out, program, programs, heads, batch, sequences, sum_parts, offset_steps, STEPS, 128)
