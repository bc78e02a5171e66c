# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Who computes what: which tiles a program takes, in which order, and which keys a slab of queries sees.

A tile is CONSUMERS slabs of SLAB query rows of one pair (b, h). The first key tile begins ``lead`` keys before the
first key, so that a causal slab meets the diagonal within one key tile; what lies before the first key loads as zero.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from . import sizes

SLAB, WARPS = gl.constexpr(sizes.SLAB), gl.constexpr(sizes.WARPS)


@gluon.jit
def _programs(AFRESH: gl.constexpr):
    """Return the number of programs; AFRESH: so that neither it nor what follows from it is kept in registers."""
    programs = gl.num_programs(0)
    if AFRESH:
        text: gl.constexpr = "mov.u32 $0, %nctaid.x;"
        programs = gl.inline_asm_elementwise(text, "=r,r", [programs], dtype=gl.int32, is_pure=False, pack=1)
    return programs


@gluon.jit
def _early_folds(pairs, query_tiles, programs, LATE: gl.constexpr):
    """Return how many folds of a long tile with a short one each program takes first: all but LATE of them."""
    return gl.maximum(pairs * (query_tiles // 2) // programs - LATE, 0)


@gluon.jit
def _in_snake(deal, programs):
    """Return this program's place in a deal: every other one goes backwards, so that who got more then gets less."""
    return gl.where(deal & 1 == 0, gl.program_id(0), programs - 1 - gl.program_id(0))


@gluon.jit
def turns(pairs, query_tiles, CAUSAL: gl.constexpr, LATE: gl.constexpr = 0, AFRESH: gl.constexpr = False):
    """Return how many tiles this program computes; every program takes part in the first deal."""
    programs = _programs(AFRESH)
    if AFRESH:
        pairs, query_tiles = again(pairs), again(query_tiles)
    if CAUSAL:
        early = _early_folds(pairs, query_tiles, programs, LATE)
        late = pairs * query_tiles - 2 * early * programs
        deals = late // programs
        turns = 2 * early + deals
        if _in_snake(deals, programs) < late - deals * programs:
            turns += 1
    else:
        turns = gl.cdiv(pairs * query_tiles - gl.program_id(0), programs)
    return turns


@gluon.jit
def again(number):
    """Return ``number`` as one that the compiler knows nothing of: what follows from it is not kept in registers."""
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def apart(number, FIRST: gl.constexpr):
    """Return ``number`` as one that the assembler does not know to be the same in another branch, which is not FIRST.

    Triton 3.6's assembler computes what two branches derive from a number in one of them, and uses it in both. To it
    this is the number times the grid's extent in y, or in z; both are 1.
    """
    axis: gl.constexpr = "y" if FIRST else "z"
    text: gl.constexpr = "{ .reg .b32 one; mov.u32 one, %nctaid." + axis + "; mul.lo.s32 $0, $1, one; }"
    return gl.inline_asm_elementwise(text, "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def afresh(sizes):
    """Return the numbers ``sizes`` as ones that the compiler knows nothing of."""
    return gl.tuple([again(size) for size in sizes])


@gluon.jit
def place(turn, pairs, query_tiles, CAUSAL: gl.constexpr, LATE: gl.constexpr = 0, AFRESH: gl.constexpr = False):
    """Return (pair, tile) of a turn: pair (b, h) after pair, so that the programs at work share its keys.

    Causal tiles are dealt out folded, the longest with the shortest, so that all folds cost the same. LATE folds for
    each program, and what is over, are dealt out at the end from the longest tile down, so that all end together; what
    they read should fit in the L2. AFRESH: keep nothing for it from turn to turn.
    """
    programs = _programs(AFRESH)
    if CAUSAL:
        early = _early_folds(pairs, query_tiles, programs, LATE)
        if turn < 2 * early:
            half = query_tiles // 2
            fold = turn // 2 * programs + gl.program_id(0)
            pair = fold // half
            short = fold - pair * half
            tile = gl.where(turn & 1 == 0, query_tiles - 1 - short, short)
        else:
            deal = turn - 2 * early
            pair, tile = _longest_first(
                deal * programs + _in_snake(deal, programs), early * programs, pairs, query_tiles
            )
    else:
        unit = turn * programs + gl.program_id(0)
        pair = unit // query_tiles
        tile = unit - pair * query_tiles
    return pair, tile


@gluon.jit
def _longest_first(index, folds, pairs, query_tiles):
    """Return (pair, tile) of the index-th longest tile where the first ``folds`` folds are gone, counted by pairs.

    The longer half goes tile by tile, each with the pairs that have it left; then come the tiles in the middle of all
    pairs, if there are any, then the shorter half, which is the longer one's mirror.
    """
    half = query_tiles // 2
    left = pairs * half - folds
    middles = (query_tiles & 1) * pairs
    mirrored = index >= left + middles
    at = gl.where(mirrored, 2 * left + middles - 1 - index, index)
    begun = folds // gl.maximum(half, 1)
    gone = folds - begun * half
    whole = pairs - begun - 1
    fewer = at < gone * whole
    at = gl.where(fewer, at, at - gone * whole)
    wide = gl.where(fewer, whole, whole + 1)
    fold = at // gl.maximum(wide, 1)
    pair = begun + at - fold * wide + gl.where(fewer, 1, 0)
    fold += gl.where(fewer, 0, gone)
    tile = gl.where(mirrored, fold, query_tiles - 1 - fold)
    middle = (index >= left) & (index < left + middles)
    return gl.where(middle, index - left, pair), gl.where(middle, half, tile)


@gluon.jit
def first_row(tile, n_q, query_tiles, CONSUMERS: gl.constexpr):
    """Return a tile's first query row; a row below 0 is none.

    Tiles end with the last slab, so that it is the first tile, which sees least, that lacks slabs.
    """
    return (gl.cdiv(n_q, SLAB) - (query_tiles - tile) * CONSUMERS) * SLAB


@gluon.jit
def key_tiles(row, n_q, n_k, lead, BLOCK_K: gl.constexpr, CAUSAL: gl.constexpr):
    """Return how many key tiles the slab at query ``row`` sees; at least one, of which the mask may leave nothing."""
    stop = gl.cdiv(n_k, BLOCK_K)
    if CAUSAL:
        last = gl.minimum(row + SLAB - 1 + n_k - n_q, n_k - 1) + lead
        stop = gl.maximum(last, 0) // BLOCK_K + 1
    return gl.where((row >= 0) & (row < n_q), stop, 1)


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
    pair, tile = place(turn, pairs, key_tiles, CAUSAL, AFRESH=True)
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
