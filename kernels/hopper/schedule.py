# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Who computes what: which tiles a program takes, in which order, and which keys a slab of queries sees.

A tile is CONSUMERS slabs of SLAB query rows of one pair (b, h). The first key tile begins ``lead`` keys before the
first key, so that a causal slab meets the diagonal within one key tile; what lies before the first key loads as zero.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

SLAB = gl.constexpr(64)
"""Query rows of one consumer: the rows of one wgmma."""


@gluon.jit
def _programs(AFRESH: gl.constexpr):
    """Return the number of programs; AFRESH: so that neither it nor what follows from it is kept in registers."""
    programs = gl.num_programs(0)
    if AFRESH:
        text: gl.constexpr = "mov.u32 $0, %nctaid.x;"
        programs = gl.inline_asm_elementwise(text, "=r,r", [programs], dtype=gl.int32, is_pure=False, pack=1)
    return programs


@gluon.jit
def _share(units, programs):
    """Return how many of ``units``, dealt out in turn, this program gets."""
    return gl.cdiv(units - gl.program_id(0), programs)


@gluon.jit
def turns(pairs, query_tiles, CAUSAL: gl.constexpr, AFRESH: gl.constexpr = False):
    """Return how many tiles this program computes; every program takes part in the first deal."""
    programs = _programs(AFRESH)
    if CAUSAL:
        folds = pairs * (query_tiles // 2)
        turns = 2 * _share(folds, programs)
        if query_tiles & 1 != 0:
            turns += _share(folds + pairs, programs) - _share(folds, programs)
    else:
        turns = _share(pairs * query_tiles, programs)
    return turns


@gluon.jit
def again(number):
    """Return ``number`` as one that the compiler knows nothing of: what follows from it is not kept in registers."""
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def afresh(sizes):
    """Return the six numbers ``sizes`` as ones that the compiler knows nothing of."""
    a, b, c, d, e, f = sizes
    return again(a), again(b), again(c), again(d), again(e), again(f)


@gluon.jit
def place(turn, pairs, query_tiles, CAUSAL: gl.constexpr, AFRESH: gl.constexpr = False):
    """Return (pair, tile) of a turn: pair (b, h) after pair, so that the programs at work share its keys.

    Causal tiles are dealt out folded: the longest with the shortest, so that all folds cost the same, and the middle
    tile of each pair, if there is one, at the end. AFRESH: keep nothing for it from turn to turn.
    """
    programs = _programs(AFRESH)
    if CAUSAL:
        half = query_tiles // 2
        folds = pairs * half
        deal = turn // 2
        last = turn >= 2 * _share(folds, programs)
        if last:
            deal = turn - _share(folds, programs)
        unit = deal * programs + gl.program_id(0)
        pair = gl.where(last, unit - folds, unit // gl.maximum(half, 1))
        short = unit - pair * half
        tile = gl.where(last, half, gl.where(turn & 1 == 0, query_tiles - 1 - short, short))
    else:
        unit = turn * programs + gl.program_id(0)
        pair = unit // query_tiles
        tile = unit - pair * query_tiles
    return pair, tile


@gluon.jit
def key_tiles(row, n_q, n_k, lead, BLOCK_K: gl.constexpr, CAUSAL: gl.constexpr):
    """Return how many key tiles the slab at query ``row`` sees; at least one, of which the mask may leave nothing."""
    stop = gl.cdiv(n_k, BLOCK_K)
    if CAUSAL:
        last = gl.minimum(row + SLAB - 1 + n_k - n_q, n_k - 1) + lead
        stop = gl.maximum(last, 0) // BLOCK_K + 1
    return gl.where(row < n_q, stop, 1)


@gluon.jit
def last_key_tile(first_row, n_q, n_k, lead, BLOCK_K: gl.constexpr, CONSUMERS: gl.constexpr, CAUSAL: gl.constexpr):
    """Return how many key tiles a turn's consumers see together."""
    stop = key_tiles(first_row, n_q, n_k, lead, BLOCK_K, CAUSAL)
    for c in gl.static_range(1, CONSUMERS):
        stop = gl.maximum(stop, key_tiles(first_row + c * SLAB, n_q, n_k, lead, BLOCK_K, CAUSAL))
    return stop


@gluon.jit
def place_keys(turn, pairs, key_tiles, CAUSAL: gl.constexpr):
    """Return (pair, tile) of a turn of the key kernel, where the first tile is the longest.

    The last pair comes first: its dQ was zeroed last and is in the cache, as that of the first is when it is rounded.
    """
    pair, tile = place(turn, pairs, key_tiles, CAUSAL, True)
    if CAUSAL:
        tile = key_tiles - 1 - tile
    return pairs - 1 - pair, tile


@gluon.jit
def query_tiles(column, n_q, n_k, BLOCK_Q: gl.constexpr, CAUSAL: gl.constexpr):
    """Return (first, unmasked, stop): which query tiles see the 2·SLAB keys from ``column`` on, masked at first.

    There is at least one, of which the mask may leave nothing.
    """
    stop = gl.cdiv(n_q, BLOCK_Q)
    first = 0
    unmasked = 0
    if CAUSAL:
        begin = column + n_q - n_k
        first = gl.minimum(gl.maximum(begin, 0) // BLOCK_Q, stop - 1)
        unmasked = gl.minimum(gl.cdiv(gl.maximum(begin + 2 * SLAB - 1, 0), BLOCK_Q), stop)
        unmasked = gl.maximum(unmasked, first)
    return first, unmasked, stop
