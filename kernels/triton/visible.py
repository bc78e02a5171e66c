# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Visibility: the keys that a tile of queries sees, the queries that see a tile of keys, and the mask.

``RULES`` is what a kernel is compiled for, the sum of the rules of ``launch``.
i' is a query's position among the keys; a key j is valid if j < limit, j <= i' (CAUSAL), and j > i' − window (WINDOW
and CAUSAL), or i' − window < j < i' + ahead (WINDOW alone); kernels pass the pair of both as ``window``. Tiles are
visited in three ranges between four edges: masked, clear and masked again; nothing outside them is visited. A mask
tensor (MASK) is applied to every tile that is visited.
"""

import triton
import triton.language as tl

from .. import visibility
from . import launch

CAUSAL, WINDOW, LENGTHS, PACKED = map(tl.constexpr, (launch.CAUSAL, launch.WINDOW, launch.LENGTHS, launch.PACKED))
MASK, PAIRS, ADDED = map(tl.constexpr, (launch.MASK, launch.PAIRS, launch.ADDED))
CACHED = tl.constexpr(launch.CACHED)
TENSOR = tl.constexpr(launch.MASK + launch.PAIRS + launch.ADDED)
"""The rules of a mask tensor, which hold in clear tiles too."""
HIDDEN = tl.constexpr(visibility.HIDDEN)


@triton.jit
def sequence(b, n_q, n_k, lengths, q_starts, k_starts, RULES: tl.constexpr):
    """Return (batch index, its first query, its queries, its first key, its keys, its valid keys)."""
    limit = n_k
    first_q, first_k = 0, 0
    if PACKED & RULES:
        first_q = tl.load(q_starts + b).to(tl.int32)
        first_k = tl.load(k_starts + b).to(tl.int32)
        n_q = tl.load(q_starts + b + 1).to(tl.int32) - first_q
        n_k = tl.load(k_starts + b + 1).to(tl.int32) - first_k
        limit = n_k
        b = b * 0
    if LENGTHS & RULES:
        limit = tl.maximum(0, tl.minimum(tl.load(lengths + b), n_k)).to(tl.int32)
    return b, first_q, n_q, first_k, n_k, limit


@triton.jit
def begin(x, first, s_n, RULES: tl.constexpr):
    """Return the pointer ``x`` moved to row ``first``; only packed sequences begin elsewhere than at 0."""
    if PACKED & RULES:
        return x + first.to(tl.int64) * tl.multiple_of(s_n, 128 // x.dtype.element_ty.primitive_bitwidth)
    else:
        return x


@triton.jit
def keys_of(row, limit, window, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, RULES: tl.constexpr):
    """Return the edges of the keys that queries at positions row .. row + BLOCK_Q see."""
    start, clear, stop = 0, limit, limit
    masked = 0
    if CAUSAL & RULES:
        clear = tl.minimum(clear, row + 1)
        stop = tl.minimum(stop, row + BLOCK_Q)
    elif WINDOW & RULES:
        clear = tl.minimum(clear, row + window[1])
        stop = tl.minimum(stop, row + BLOCK_Q - 1 + window[1])
    if (CAUSAL | WINDOW | LENGTHS) & RULES:
        clear = tl.maximum(0, clear) // BLOCK_K * BLOCK_K
    if WINDOW & RULES:
        start = tl.maximum(0, row - window[0] + 1) // BLOCK_K * BLOCK_K
        clear = tl.maximum(clear, start)
        masked = tl.cdiv(tl.maximum(0, row + BLOCK_Q - window[0]), BLOCK_K) * BLOCK_K
        masked = tl.minimum(tl.maximum(masked, start), clear)
    return start, masked, clear, stop


@triton.jit
def queries_of(column, offset, n_q, limit, window, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, RULES: tl.constexpr):
    """Return the edges of the queries, by their index i = i' − offset, that see keys column .. column + BLOCK_K."""
    start, masked, clear, stop = 0, 0, n_q, n_q
    if CAUSAL & RULES:
        start, masked = column - offset, column + BLOCK_K - 1 - offset
    elif WINDOW & RULES:
        start, masked = column - window[1] + 1 - offset, column + BLOCK_K - window[1] - offset
    if (CAUSAL | WINDOW) & RULES:
        start = tl.minimum(n_q, tl.maximum(0, start)) // BLOCK_Q * BLOCK_Q
        masked = tl.cdiv(tl.minimum(n_q, tl.maximum(0, masked)), BLOCK_Q) * BLOCK_Q
    if WINDOW & RULES:
        stop = tl.minimum(n_q, column + BLOCK_K - 1 + window[0] - offset)
        clear = tl.maximum(0, tl.minimum(n_q, column + window[0] - offset)) // BLOCK_Q * BLOCK_Q
        clear = tl.maximum(clear, start)
        masked = tl.minimum(masked, clear)
    if LENGTHS & RULES:  # no query sees a tile of padding
        seen = column < limit
        masked, clear, stop = tl.where(seen, masked, start), tl.where(seen, clear, start), tl.where(seen, stop, start)
    return start, masked, clear, stop


@triton.jit
def mask_of_head(mask, b, h, offset, m_b, m_h, m_q, RULES: tl.constexpr):
    """Return the pointer to the mask of head h of sequence b, key 0, and the query at position 0."""
    if PAIRS & RULES:
        return mask + (b.to(tl.int64) * m_b + h.to(tl.int64) * m_h - (tl.full([], 0, tl.int64) + offset) * m_q)
    elif MASK & RULES:
        return mask + (b.to(tl.int64) * m_b + h.to(tl.int64) * m_h)
    else:
        return 0


@triton.jit
def load_mask(mask, rows, columns, n_k, m_q, m_k, RULES: tl.constexpr):
    """Return the mask of queries at positions ``rows`` and keys ``columns``, or of the keys alone; 0 past the end."""
    if PAIRS & RULES:
        at = rows.to(tl.int64) * m_q + columns.to(tl.int64) * m_k
        return tl.load(mask + at, mask=(rows < n_k) & (columns < n_k), other=0)
    elif MASK & RULES:
        return tl.load(mask + columns.to(tl.int64) * m_k, mask=columns < n_k, other=0)
    else:
        return 0


@triton.jit
def add_mask(x, mask, factor, RULES: tl.constexpr):
    """Return factor·(z + b), plus factor times what a floating mask adds; what it hides is cut, to stay finite."""
    if ADDED & RULES:
        x += tl.maximum(mask.to(tl.float32), HIDDEN, propagate_nan=tl.PropagateNan.ALL) * factor
    return x


@triton.jit
def hidden_by(mask, RULES: tl.constexpr):
    """Return where a mask tensor hides pairs."""
    if ADDED & RULES:
        return mask.to(tl.float32) <= HIDDEN
    else:
        return mask == 0


@triton.jit
def apply_mask(p, rows, columns, limit, window, mask, RULES: tl.constexpr):
    """Return ``p`` where the key ``columns`` is valid for the query at position ``rows``, else 0."""
    if CAUSAL & RULES:
        p = tl.where(columns <= rows, p, 0.0)
    if WINDOW & RULES:
        distance = rows - columns
        if CAUSAL & RULES:
            p = tl.where(distance < window[0], p, 0.0)
        else:  # both sides by one comparison, for which what is ahead of all wraps around
            from_last = (distance + (window[1] - 1)).to(tl.uint32, bitcast=True)
            p = tl.where(from_last < (window[0] + window[1] - 1).to(tl.uint32, bitcast=True), p, 0.0)
    if LENGTHS & RULES:
        p = tl.where(columns < limit, p, 0.0)
    if MASK & RULES:
        p = tl.where(hidden_by(mask, RULES), 0.0, p)
    return p
