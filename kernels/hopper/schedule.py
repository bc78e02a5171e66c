# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Persistent scheduling: the work items of a program, their order, and the keys that a slab of queries sees.

A work item is a tile: CONSUMERS slabs of SLAB query rows of one pair (b, h). The first key tile begins ``lead`` keys
before the first key, so that a causal slab meets the diagonal within one key tile; what lies before the first key loads
as zero.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from . import sizes
from .compat import aggregate

SLAB, WARPS = gl.constexpr(sizes.SLAB), gl.constexpr(sizes.WARPS)


@gluon.jit
def _programs(OPAQUE: gl.constexpr):
    """Return the number of programs; OPAQUE: as one that is not kept in registers, nor what follows from it."""
    programs = gl.num_programs(0)
    if OPAQUE:
        text: gl.constexpr = "mov.u32 $0, %nctaid.x;"
        programs = gl.inline_asm_elementwise(text, "=r,r", [programs], dtype=gl.int32, is_pure=False, pack=1)
    return programs


@gluon.jit
def _early_units(pairs, query_tiles, programs, LATE: gl.constexpr):
    """Return how many units, a long tile and a short one, each program takes first: all but LATE of them."""
    return gl.maximum(pairs * (query_tiles // 2) // programs - LATE, 0)


@gluon.jit
def _serpentine(round_, programs):
    """Return this program's index in a round; every other round runs backwards, which evens out cost."""
    return gl.where(round_ & 1 == 0, gl.program_id(0), programs - 1 - gl.program_id(0))


@gluon.jit
def work_items(pairs, query_tiles, CAUSAL: gl.constexpr, LATE: gl.constexpr = 0, OPAQUE: gl.constexpr = False):
    """Return how many work items this program has, at least one."""
    programs = _programs(OPAQUE)
    if OPAQUE:
        pairs, query_tiles = opaque(pairs), opaque(query_tiles)
    if CAUSAL:
        early = _early_units(pairs, query_tiles, programs, LATE)
        late = pairs * query_tiles - 2 * early * programs
        rounds = late // programs
        items = 2 * early + rounds
        if _serpentine(rounds, programs) < late - rounds * programs:
            items += 1
    else:
        items = gl.cdiv(pairs * query_tiles - gl.program_id(0), programs)
    return items


@gluon.jit
def opaque(number):
    """Return ``number`` as one that the compiler knows nothing of: what follows from it is not kept in registers."""
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def opaque_in_branch(number, FIRST: gl.constexpr):
    """Return ``number`` as one that the assembler does not know to be the same in another branch, which is not FIRST.

    Triton 3.6's assembler computes what two branches derive from a number in one of them, and uses it in both. To it
    this is the number times the grid's extent in y, or in z; both are 1.
    """
    axis: gl.constexpr = "y" if FIRST else "z"
    text: gl.constexpr = "{ .reg .b32 one; mov.u32 one, %nctaid." + axis + "; mul.lo.s32 $0, $1, one; }"
    return gl.inline_asm_elementwise(text, "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1)


@aggregate
class Sizes:
    """Whole numbers of a problem; tiles: of queries in a pair (b, h); lead: see above."""

    heads: gl.tensor
    group: gl.tensor
    n_q: gl.tensor
    n_k: gl.tensor
    pairs: gl.tensor
    tiles: gl.tensor
    lead: gl.tensor


@aggregate
class KeySizes:
    """Whole numbers of a problem whose work items are tiles of keys; pairs: (b, key head); tiles: in each of them."""

    key_heads: gl.tensor
    group: gl.tensor
    n_q: gl.tensor
    n_k: gl.tensor
    pairs: gl.tensor
    tiles: gl.tensor


@gluon.jit
def opaque_sizes(sizes):
    """Return ``sizes`` as numbers that the compiler knows nothing of."""
    return Sizes(
        opaque(sizes.heads), opaque(sizes.group), opaque(sizes.n_q), opaque(sizes.n_k),
        opaque(sizes.pairs), opaque(sizes.tiles), opaque(sizes.lead),
    )  # fmt: skip


@gluon.jit
def opaque_key_sizes(sizes):
    """Return ``sizes`` as numbers that the compiler knows nothing of."""
    return KeySizes(
        opaque(sizes.key_heads), opaque(sizes.group), opaque(sizes.n_q), opaque(sizes.n_k),
        opaque(sizes.pairs), opaque(sizes.tiles),
    )  # fmt: skip


@gluon.jit
def work_item(item, pairs, query_tiles, CAUSAL: gl.constexpr, LATE: gl.constexpr = 0, OPAQUE: gl.constexpr = False):
    """Return (pair, tile) of a work item: pair (b, h) after pair, so that concurrent programs share its keys.

    Causal tiles come in units of two, the longest with the shortest, so that all units cost the same. LATE units for
    each program, and the remainder, are distributed at the end from the longest tile down, so that all programs end
    together; what they read should fit in the L2. OPAQUE: keep nothing for it from item to item.
    """
    programs = _programs(OPAQUE)
    if CAUSAL:
        early = _early_units(pairs, query_tiles, programs, LATE)
        if item < 2 * early:
            half = query_tiles // 2
            unit = item // 2 * programs + gl.program_id(0)
            pair = unit // half
            short = unit - pair * half
            tile = gl.where(item & 1 == 0, query_tiles - 1 - short, short)
        else:
            round_ = item - 2 * early
            pair, tile = _longest_first(
                round_ * programs + _serpentine(round_, programs), early * programs, pairs, query_tiles
            )
    else:
        index = item * programs + gl.program_id(0)
        pair = index // query_tiles
        tile = index - pair * query_tiles
    return pair, tile


@gluon.jit
def _longest_first(index, units, pairs, query_tiles):
    """Return (pair, tile) of the index-th longest tile where the first ``units`` units are gone, counted by pairs.

    The longer half goes tile by tile, each with the pairs that have it left; then come the tiles in the middle of all
    pairs, if there are any, then the shorter half, which is the longer one's mirror.
    """
    half = query_tiles // 2
    left = pairs * half - units
    middles = (query_tiles & 1) * pairs
    mirrored = index >= left + middles
    at = gl.where(mirrored, 2 * left + middles - 1 - index, index)
    begun = units // gl.maximum(half, 1)
    gone = units - begun * half
    whole = pairs - begun - 1
    fewer = at < gone * whole
    at = gl.where(fewer, at, at - gone * whole)
    wide = gl.where(fewer, whole, whole + 1)
    offset = at // gl.maximum(wide, 1)
    pair = begun + at - offset * wide + gl.where(fewer, 1, 0)
    offset += gl.where(fewer, 0, gone)
    tile = gl.where(mirrored, offset, query_tiles - 1 - offset)
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
    """Return how many key tiles the consumers of a work item see together."""
    stop = key_tiles(first_row, n_q, n_k, lead, BLOCK_K, CAUSAL)
    for c in gl.static_range(1, CONSUMERS):
        stop = gl.maximum(stop, key_tiles(first_row + c * SLAB, n_q, n_k, lead, BLOCK_K, CAUSAL))
    return stop


@gluon.jit
def key_work_item(item, pairs, key_tiles, CAUSAL: gl.constexpr):
    """Return (pair, tile) of a work item of the kernel for dK and dV, where the first tile is the longest.

    The last pair comes first: its dQ was zeroed last and is in the cache, as that of the first is when it is rounded.
    """
    pair, tile = work_item(item, pairs, key_tiles, CAUSAL, OPAQUE=True)
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
