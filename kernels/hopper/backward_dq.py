# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The hopper kernel for dQ alone, where results must repeat bit for bit: three products.

Q, dO, dQ [B, H, n_q, D]; K, V [B, H / group, n_k, D]; bias [H].
A work item is a tile of 2·SLAB queries of one head, in the forward's order: consumer w holds q and do of slab w, and
keys and values come in tiles [BLOCK_K, D_PAD] from the last visible down to the first, through rings of STAGES buffers.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from . import compat, schedule
from .barriers import await_empty, await_full, barriers
from .compat import aggregate
from .gradients import Factors, causal_mask, logit_gradient, weights
from .schedule import SLAB
from .weights import BY_HEAD, EX2, TANH, TANH_FACTOR


@aggregate
class _Rings:
    """Buffers in shared memory: one a consumer of q, do and dQ, STAGES of k and v."""

    q: gl.shared_memory_descriptor
    do: gl.shared_memory_descriptor
    k: gl.shared_memory_descriptor
    v: gl.shared_memory_descriptor
    o: gl.shared_memory_descriptor


@aggregate
class _Guards:
    """Barriers for full and for empty buffers: of q and do, of k and v."""

    q_full: gl.shared_memory_descriptor
    q_empty: gl.shared_memory_descriptor
    full: gl.shared_memory_descriptor
    empty: gl.shared_memory_descriptor


@aggregate
class _Config:
    """Compile-time configuration; gain: factor of dS when it is rounded."""

    block_k: gl.constexpr
    stages: gl.constexpr
    causal: gl.constexpr
    has_bias: gl.constexpr
    form: gl.constexpr
    gain: gl.constexpr


@gluon.jit
def _produce(Q, dO, K, V, rings, guards, sizes, config):
    """Load the slabs of every work item and the keys and values that they see, as soon as their buffers are empty."""
    BLOCK_K: gl.constexpr = config.block_k
    STAGES: gl.constexpr = config.stages
    CAUSAL: gl.constexpr = config.causal
    step = 0
    for item in range(schedule.work_items(sizes.pairs, sizes.tiles, CAUSAL, OPAQUE=True)):
        now = schedule.opaque_sizes(sizes)
        n_q, n_k, lead = now.n_q, now.n_k, now.lead
        pair, tile = schedule.work_item(item, now.pairs, now.tiles, CAUSAL, OPAQUE=True)
        b = pair // now.heads
        head = pair % now.heads
        first = tile * (2 * SLAB)
        for w in gl.static_range(2):
            mbarrier.wait(guards.q_empty.index(w), (item & 1) ^ 1)
            mbarrier.expect(guards.q_full.index(w), 2 * Q.block_type.nbytes)
            compat.load(Q, [b, head, first + w * SLAB, 0], guards.q_full.index(w), rings.q.index(w))
            compat.load(dO, [b, head, first + w * SLAB, 0], guards.q_full.index(w), rings.do.index(w))
        stop = schedule.last_key_tile(first, n_q, n_k, lead, BLOCK_K, 2, CAUSAL)
        for i in range(stop):
            column = (stop - 1 - i) * BLOCK_K - lead
            slot = step & (STAGES - 1)
            await_empty(guards.empty, step, STAGES)
            mbarrier.expect(guards.full.index(slot), 2 * K.block_type.nbytes)
            compat.load(K, [b, head // now.group, column, 0], guards.full.index(slot), rings.k.index(slot))
            compat.load(V, [b, head // now.group, column, 0], guards.full.index(slot), rings.v.index(slot))
            step += 1


@gluon.jit
def _accumulate(
    dq, q, do, rings, guards, step, count, reach, c_scale, shift, config, FORM: gl.constexpr, MASKED: gl.constexpr
):  # fmt: skip
    """Add dS k of ``count`` key tiles; row r of the slab sees the first tile's keys up to r + reach."""
    D: gl.constexpr = dq.shape[1]
    BLOCK_K: gl.constexpr = config.block_k
    STAGES: gl.constexpr = config.stages
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_K, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, dq.type.layout, 2)
    zero = gl.zeros([SLAB, BLOCK_K], gl.float32, s_layout)
    for i in range(step, step + count):
        slot = i & (STAGES - 1)
        await_full(guards.full, i, STAGES)
        k = rings.k.index(slot).reshape([BLOCK_K, D])
        v = rings.v.index(slot).reshape([BLOCK_K, D])
        s_token = warpgroup_mma(q, k.permute((1, 0)), zero, use_acc=False, is_async=True)
        dp_token = warpgroup_mma(do, v.permute((1, 0)), zero, use_acc=False, is_async=True)
        s = warpgroup_mma_wait(1, deps=(s_token,))
        p = weights(s, c_scale, shift, FORM)
        if MASKED:
            p = causal_mask(p, reach, False)
        dp = warpgroup_mma_wait(0, deps=(dp_token,))
        ds = gl.convert_layout(logit_gradient(p, dp, config.gain).to(rings.k.dtype), p_layout)
        dq_token = warpgroup_mma(ds, k, dq, is_async=True)
        dq = warpgroup_mma_wait(0, deps=(dq_token,))
        mbarrier.arrive(guards.empty.index(slot), count=1)
    return dq


@gluon.jit
def _keys(dq, q, do, rings, guards, step, stop, reach, c_scale, shift, config, FORM: gl.constexpr):
    """Take all key tiles of a slab: the one that the diagonal crosses, then those below it."""
    if config.causal:
        dq = _accumulate(dq, q, do, rings, guards, step, 1, reach, c_scale, shift, config, FORM, True)
        step += 1
        stop -= 1
    return _accumulate(dq, q, do, rings, guards, step, stop, reach, c_scale, shift, config, FORM, False)


@gluon.jit
def _pass_over(full, empty, step, stop, STAGES: gl.constexpr):
    """Release key tiles that only the other consumer sees."""
    for i in range(step, stop):
        await_full(full, i, STAGES)
        mbarrier.arrive(empty.index(i & (STAGES - 1)), count=1)


@gluon.jit
def _consume(dQ, bias, rings, guards, sizes, factors, config, W: gl.constexpr):
    """Compute dQ[i] = scale·Σ_j dS[i, j] k_j for slab W of every work item."""
    BLOCK_K: gl.constexpr = config.block_k
    CAUSAL: gl.constexpr = config.causal
    c_scale, factor = factors.c_scale, factors.factor
    D: gl.constexpr = dQ.block_type.shape[3]
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    q = rings.q.index(W).reshape([SLAB, D])
    do = rings.do.index(W).reshape([SLAB, D])
    o_tile = rings.o.index(W)
    shift = factors.c_bias
    step = 0
    for item in range(schedule.work_items(sizes.pairs, sizes.tiles, CAUSAL, OPAQUE=True)):
        now = schedule.opaque_sizes(sizes)
        heads, n_q, n_k, lead = now.heads, now.n_q, now.n_k, now.lead
        pair, tile = schedule.work_item(item, now.pairs, now.tiles, CAUSAL, OPAQUE=True)
        first_row = tile * (2 * SLAB)
        row = first_row + W * SLAB
        stop = schedule.key_tiles(row, n_q, n_k, lead, BLOCK_K, CAUSAL)
        tiles = schedule.last_key_tile(first_row, n_q, n_k, lead, BLOCK_K, 2, CAUSAL)
        begin = step + tiles - stop
        _pass_over(guards.full, guards.empty, step, begin, config.stages)
        reach = row + n_k - n_q + lead - (stop - 1) * BLOCK_K
        dq = gl.zeros([SLAB, D], gl.float32, o_layout)
        mbarrier.wait(guards.q_full.index(W), item & 1)
        if config.form == BY_HEAD:
            b = gl.load(bias + pair % heads)
            if b * b <= factors.largest * factors.largest:
                dq = _keys(
                    dq, q, do, rings, guards, begin, stop, reach,
                    c_scale * TANH_FACTOR, b * factor * TANH_FACTOR, config, TANH,
                )  # fmt: skip
            else:
                dq = _keys(dq, q, do, rings, guards, begin, stop, reach, c_scale, b * factor, config, EX2)
        else:
            if config.has_bias:
                shift = gl.load(bias + pair % heads) * factor
            dq = _keys(dq, q, do, rings, guards, begin, stop, reach, c_scale, shift, config, config.form)
        # Triton 3.6 takes ``step + tiles`` for ``step``, and begins every work item at 0.
        step = schedule.opaque(step) + tiles
        mbarrier.arrive(guards.q_empty.index(W), count=1)
        tma.store_wait(0)
        o_tile.reshape([SLAB, D]).store((dq * factors.scale).to(dQ.dtype))
        fence_async_shared()
        compat.store(dQ, [pair // heads, pair % heads, row, 0], o_tile)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["heads", "group", "n_q", "n_k", "pairs", "query_tiles", "lead"])
def bwd_dq_kernel(
    Q, K, V, dO, dQ, bias,
    heads, group, n_q, n_k, pairs, query_tiles, lead, c_scale, c_bias, factor, scale, largest,
    BLOCK_K: gl.constexpr, STAGES: gl.constexpr, REGISTERS: gl.constexpr, CAUSAL: gl.constexpr,
    HAS_BIAS: gl.constexpr, FORM: gl.constexpr, GAIN: gl.constexpr,
):  # fmt: skip
    """Compute dQ = scale·dS K; grid (programs,)."""
    D: gl.constexpr = Q.block_type.shape[3]
    q_ring = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, SLAB, D], Q.layout)
    do_ring = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, SLAB, D], dO.layout)
    o_ring = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, SLAB, D], dQ.layout)
    k_ring = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_K, D], K.layout)
    v_ring = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_K, D], V.layout)
    q_full, q_empty = barriers(2, 1), barriers(2, 1)
    full, empty = barriers(STAGES, 1), barriers(STAGES, 2)
    fence_async_shared()
    rings = _Rings(q_ring, do_ring, k_ring, v_ring, o_ring)
    guards = _Guards(q_full, q_empty, full, empty)
    sizes = schedule.Sizes(heads, group, n_q, n_k, pairs, query_tiles, lead)
    factors = Factors(c_scale, c_bias, factor, scale, largest)
    config = _Config(BLOCK_K, STAGES, CAUSAL, HAS_BIAS, FORM, GAIN)
    gl.warp_specialize(
        [
            (_consume, (dQ, bias, rings, guards, sizes, factors, config, 0)),
            (_consume, (dQ, bias, rings, guards, sizes, factors, config, 1)),
            (_produce, (Q, dO, K, V, rings, guards, sizes, config)),
        ],
        [4, 1],
        [REGISTERS, 24],
    )
