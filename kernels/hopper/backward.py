# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The hopper kernel for dK, dV, db and, unless results must repeat bit for bit, dQ: five products.

Q, dO [B, H, n_q, D]; K, V, dK, dV [B, H / group, n_k, D]; dQ [B, H, n_q, D] float32, zero at first; bias [H];
dB [B·H, key_tiles · 2, WARPS] float32. With P = sigmoid(z + b) computed again: dP = dO Vᵀ, dS = P (1 − P) dP,
dV = Pᵀ dO, dK = scale·dSᵀ Q, dQ = dS K, db = Σ dS.
A work item is a tile of 2·SLAB keys of one key head. The producer loads k and v once an item and q, do
[BLOCK_Q, D_PAD] of every query tile into rings of STAGES buffers; consumer w keeps dK and dV of slab w in registers and
works on transposed tiles [SLAB, BLOCK_Q]. For dQ both write their dS into a ring of two; a step later each multiplies
all of it with half of K, or half of it with K, and adds the part [64, 64] to dQ by TMA: neither waits for the other's
dS. The dQ of an item's first step belongs to no step, and goes past the end of dQ, where TMA writes nothing.
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
from .gradients import Factors, causal_mask, logit_gradient, rounded, weights
from .schedule import SLAB, WARPS
from .weights import BY_HEAD, EX2, TANH, TANH_FACTOR


@aggregate
class _Rings:
    """Buffers in shared memory: STAGES of q and do, one of k and v, two of dS, two of parts of dQ, two of outputs."""

    q: gl.shared_memory_descriptor
    do: gl.shared_memory_descriptor
    k: gl.shared_memory_descriptor
    v: gl.shared_memory_descriptor
    ds: gl.shared_memory_descriptor
    dq: gl.shared_memory_descriptor
    o: gl.shared_memory_descriptor


@aggregate
class _Guards:
    """Barriers for full and for empty buffers: of q and do, of k and v, of dS."""

    full: gl.shared_memory_descriptor
    empty: gl.shared_memory_descriptor
    kv_full: gl.shared_memory_descriptor
    kv_empty: gl.shared_memory_descriptor
    ds_full: gl.shared_memory_descriptor
    ds_empty: gl.shared_memory_descriptor


@aggregate
class _Config:
    """Compile-time configuration; fused: whether it also adds to dQ; gains: factors of P and dS when rounded."""

    block_q: gl.constexpr
    stages: gl.constexpr
    causal: gl.constexpr
    has_bias: gl.constexpr
    bias_gradient: gl.constexpr
    fused: gl.constexpr
    form: gl.constexpr
    gain: gl.constexpr
    gradient_gain: gl.constexpr


@gluon.jit
def _produce(Q, dO, K, V, rings, guards, sizes, config):
    """Load keys and values of every work item, and the queries that see them, as soon as their buffers are empty."""
    BLOCK_Q: gl.constexpr = config.block_q
    STAGES: gl.constexpr = config.stages
    CAUSAL: gl.constexpr = config.causal
    key_heads, group, pairs, key_tiles = sizes.key_heads, sizes.group, sizes.pairs, sizes.tiles
    step = 0
    for item in range(schedule.work_items(pairs, key_tiles, CAUSAL, OPAQUE=True)):
        pair, tile = schedule.key_work_item(item, pairs, key_tiles, CAUSAL)
        b = pair // key_heads
        column = tile * (2 * SLAB)
        mbarrier.wait(guards.kv_empty.index(0), (item & 1) ^ 1)
        mbarrier.expect(guards.kv_full.index(0), 2 * K.block_type.nbytes)
        compat.load(K, [b, pair % key_heads, column, 0], guards.kv_full.index(0), rings.k.index(0))
        compat.load(V, [b, pair % key_heads, column, 0], guards.kv_full.index(0), rings.v.index(0))
        first, _masked, stop = schedule.query_tiles(column, sizes.n_q, sizes.n_k, BLOCK_Q, CAUSAL)
        for member in range(group):
            head = pair % key_heads * group + member
            for i in range(first, stop):
                slot = step & (STAGES - 1)
                await_empty(guards.empty, step, STAGES)
                mbarrier.expect(guards.full.index(slot), 2 * Q.block_type.nbytes)
                compat.load(Q, [b, head, i * BLOCK_Q, 0], guards.full.index(slot), rings.q.index(slot))
                compat.load(dO, [b, head, i * BLOCK_Q, 0], guards.full.index(slot), rings.do.index(slot))
                step += 1


@gluon.jit
def _query_product(ds, k_tile, W: gl.constexpr):
    """Start consumer W's part [64, 64] of dS K, of dS transposed [2·SLAB, BLOCK_Q]."""
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, 64, 16])
    zero = gl.zeros([64, 64], gl.float32, layout)
    if ds.shape[1] == 64:
        ds_part = ds.permute((1, 0))
        k_part = k_tile.slice(W * 64, 64, dim=1)
    else:
        ds_part = ds.slice(W * 64, 64, dim=1).permute((1, 0))
        k_part = k_tile
    return warpgroup_mma(ds_part, k_part, zero, use_acc=False, is_async=True)


@gluon.jit
def _add_to_query(dQ, part, dq_tile, pair, row, W: gl.constexpr, BLOCK_Q: gl.constexpr):
    """Add consumer W's part of a step's dS K to dQ."""
    tma.store_wait(0)
    dq_tile.reshape([64, 64]).store(part)
    fence_async_shared()
    if BLOCK_Q == 64:
        compat.add(dQ, [0, pair, row, W * 64], dq_tile)
    else:
        compat.add(dQ, [0, pair, row + W * 64, 0], dq_tile)


@gluon.jit
def _steps(
    state, dQ, rings, guards, first, unmasked, stop, item, pair, reach, c_scale, shift,
    config, FORM: gl.constexpr, W: gl.constexpr,
):  # fmt: skip
    """Take query tiles ``first`` to ``stop`` of one pair (b, h); the diagonal crosses those before ``unmasked``.

    Query row r sees the slab's keys up to r + reach.
    """
    BLOCK_Q: gl.constexpr = config.block_q
    STAGES: gl.constexpr = config.stages
    dk, dv, db, step, pair_before, row_before = state
    D: gl.constexpr = dk.shape[1]
    dtype: gl.constexpr = rings.q.dtype
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_Q, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    zero = gl.zeros([SLAB, BLOCK_Q], gl.float32, s_layout)
    for i in range(first, stop):
        slot = step & (STAGES - 1)
        # An opaque index, else the descriptors of k and v take 32 registers outside of the loop.
        only = schedule.opaque(0)
        k_tile = rings.k.index(only).reshape([2 * SLAB, D])
        k = k_tile.slice(W * SLAB, SLAB, dim=0)
        v = rings.v.index(only).reshape([2 * SLAB, D]).slice(W * SLAB, SLAB, dim=0)
        await_full(guards.full, step, STAGES)
        q = rings.q.index(slot).reshape([BLOCK_Q, D])
        do = rings.do.index(slot).reshape([BLOCK_Q, D])
        s_token = warpgroup_mma(k, q.permute((1, 0)), zero, use_acc=False, is_async=True)
        dp_token = warpgroup_mma(v, do.permute((1, 0)), zero, use_acc=False, is_async=True)
        s = warpgroup_mma_wait(1, deps=(s_token,))
        p = weights(s, c_scale, shift, FORM)
        if config.causal:  # noqa: SIM102 - known when compiled, the other is not
            if i < unmasked:
                p = causal_mask(p, i * BLOCK_Q + reach, True)
        p_rounded = gl.convert_layout(rounded(p, config.gain, dtype), p_layout)
        dp = warpgroup_mma_wait(0, deps=(dp_token,))
        dv_token = warpgroup_mma(p_rounded, do, dv, is_async=True)
        ds = logit_gradient(p, dp, config.gradient_gain)
        if config.bias_gradient:
            db += gl.sum(ds, 1)
        ds_rounded = ds.to(dtype)
        if config.fused:
            number = step + item + 1
            mbarrier.wait(guards.ds_empty.index(number & 1), ((number & 2) // 2) ^ 1)
            rings.ds.index(number & 1).slice(W * SLAB, SLAB, dim=0).store(ds_rounded)
            fence_async_shared()
            mbarrier.arrive(guards.ds_full.index(number & 1), count=1)
        dk_token = warpgroup_mma(gl.convert_layout(ds_rounded, p_layout), q, dk, is_async=True)
        if config.fused:
            last = step + item
            mbarrier.wait(guards.ds_full.index(last & 1), (last & 2) // 2)
            dq_token = _query_product(rings.ds.index(last & 1), k_tile, W)
            dv = warpgroup_mma_wait(2, deps=(dv_token,))
            dk = warpgroup_mma_wait(1, deps=(dk_token,))
            mbarrier.arrive(guards.empty.index(slot), count=1)
            part = warpgroup_mma_wait(0, deps=(dq_token,))
            mbarrier.arrive(guards.ds_empty.index(last & 1), count=1)
            _add_to_query(dQ, part, rings.dq.index(W), pair_before, row_before, W, BLOCK_Q)
            pair_before, row_before = pair, i * BLOCK_Q
        else:
            dv = warpgroup_mma_wait(1, deps=(dv_token,))
            dk = warpgroup_mma_wait(0, deps=(dk_token,))
            mbarrier.arrive(guards.empty.index(slot), count=1)
        step += 1
    return dk, dv, db, step, pair_before, row_before


@gluon.jit
def _destination(item, sizes, W: gl.constexpr, CAUSAL: gl.constexpr):
    """Return (batch, key head, first key) of consumer W's slab, recomputed for each store, not kept in registers."""
    now = schedule.opaque_key_sizes(sizes)
    key_pair, tile = schedule.key_work_item(schedule.opaque(item), now.pairs, now.tiles, CAUSAL)
    return key_pair // now.key_heads, key_pair % now.key_heads, tile * (2 * SLAB) + W * SLAB


@gluon.jit
def _consume(dQ, dK, dV, bias, dB, rings, guards, sizes, factors, config, W: gl.constexpr):
    """dV[j] = Σ_i P[i, j] dO_i and dK[j] = scale·Σ_i dS[i, j] q_i of slab W; the heads that share a key are summed."""
    BLOCK_Q: gl.constexpr = config.block_q
    CAUSAL: gl.constexpr = config.causal
    c_scale, factor = factors.c_scale, factors.factor
    D: gl.constexpr = dK.block_type.shape[3]
    dtype: gl.constexpr = dK.dtype
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_Q, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    shift = factors.c_bias
    step = 0
    for item in range(schedule.work_items(sizes.pairs, sizes.tiles, CAUSAL, OPAQUE=True)):
        now = schedule.opaque_key_sizes(sizes)
        key_heads, group, n_q, n_k, key_tiles = now.key_heads, now.group, now.n_q, now.n_k, now.tiles
        key_pair, tile = schedule.key_work_item(item, now.pairs, key_tiles, CAUSAL)
        column = tile * (2 * SLAB)
        first, unmasked, stop = schedule.query_tiles(column, n_q, n_k, BLOCK_Q, CAUSAL)
        reach = n_k - n_q - column - W * SLAB
        dk = gl.zeros([SLAB, D], gl.float32, o_layout)
        dv = gl.zeros([SLAB, D], gl.float32, o_layout)
        pair_before, row_before = 0, n_q
        if config.fused:
            mbarrier.wait(guards.ds_empty.index((step + item) & 1), (((step + item) & 2) // 2) ^ 1)
            mbarrier.arrive(guards.ds_full.index((step + item) & 1), count=1)
        mbarrier.wait(guards.kv_full.index(0), item & 1)
        for member in range(group):
            pair = key_pair * group + member
            state = (dk, dv, gl.zeros([SLAB], gl.float32, gl.SliceLayout(1, s_layout)), step, pair_before, row_before)
            if config.form == BY_HEAD:
                head_bias = gl.load(bias + pair % (key_heads * group))
                if gl.maximum(head_bias, -head_bias) <= factors.largest:
                    state = _steps(
                        state, dQ, rings, guards, first, unmasked, stop, item, pair, reach,
                        c_scale * TANH_FACTOR, head_bias * factor * TANH_FACTOR, config, TANH, W,
                    )  # fmt: skip
                else:
                    state = _steps(
                        state, dQ, rings, guards, first, unmasked, stop, item, pair, reach,
                        c_scale, head_bias * factor, config, EX2, W,
                    )  # fmt: skip
            else:
                if config.has_bias:
                    shift = gl.load(bias + pair % (key_heads * group)) * factor
                state = _steps(
                    state, dQ, rings, guards, first, unmasked, stop, item, pair, reach,
                    c_scale, shift, config, config.form, W,
                )  # fmt: skip
            dk, dv, db, step, pair_before, row_before = state
            if config.bias_gradient:
                # A partial sum for each warp: adding them up keeps addresses in shared memory through the loops.
                parts = gl.sum(db.reshape([WARPS, SLAB // WARPS]), 1) * (1.0 / config.gradient_gain)
                slab = (pair * key_tiles + tile) * 2 + W
                gl.store(dB + slab * WARPS + gl.arange(0, WARPS, parts.type.layout), parts)
        # Nothing: a zero that ptxas cannot know. What it does know of a TMA's operands it leaves to the thread that
        # starts it, and keeps the others' from item to item.
        only, nothing = schedule.opaque(0), gl.minimum(n_k, 0)
        o_tile = rings.o.index(nothing + W)
        tma.store_wait(0)
        o_tile.reshape([SLAB, D]).store((dv * (1.0 / config.gain)).to(dtype))
        fence_async_shared()
        b, key_head, first_key = _destination(item, sizes, W, CAUSAL)
        compat.store(dV, [b, key_head, first_key, nothing], o_tile)
        if config.fused:
            last = schedule.opaque(step + item)
            mbarrier.wait(guards.ds_full.index(last & 1), (last & 2) // 2)
            part = _query_product(rings.ds.index(last & 1), rings.k.index(only).reshape([2 * SLAB, D]), W)
            part = warpgroup_mma_wait(0, deps=(part,))
            mbarrier.arrive(guards.ds_empty.index(last & 1), count=1)
            mbarrier.arrive(guards.kv_empty.index(0), count=1)
            _add_to_query(dQ, part, rings.dq.index(nothing + W), pair_before, row_before, W, BLOCK_Q)
        else:
            mbarrier.arrive(guards.kv_empty.index(0), count=1)
        tma.store_wait(0)
        o_tile.reshape([SLAB, D]).store((dk * factors.scale).to(dtype))
        fence_async_shared()
        b, key_head, first_key = _destination(item, sizes, W, CAUSAL)
        compat.store(dK, [b, key_head, first_key, nothing], o_tile)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["key_heads", "group", "n_q", "n_k", "pairs", "key_tiles"])
def bwd_dkdv_kernel(
    Q, K, V, dO, dQ, dK, dV, bias, dB,
    key_heads, group, n_q, n_k, pairs, key_tiles, c_scale, c_bias, factor, scale, largest,
    BLOCK_Q: gl.constexpr, STAGES: gl.constexpr, REGISTERS: gl.constexpr, CAUSAL: gl.constexpr,
    HAS_BIAS: gl.constexpr, BIAS_GRADIENT: gl.constexpr, FUSED: gl.constexpr, FORM: gl.constexpr,
    GAIN: gl.constexpr, GRADIENT_GAIN: gl.constexpr,
):  # fmt: skip
    """dK, dV, the bias's gradient by key slab and, if FUSED, dQ / scale; grid (programs,)."""
    D: gl.constexpr = Q.block_type.shape[3]
    q_ring = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_Q, D], Q.layout)
    do_ring = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_Q, D], dO.layout)
    k_ring = gl.allocate_shared_memory(Q.dtype, [1, 1, 1, 2 * SLAB, D], K.layout)
    v_ring = gl.allocate_shared_memory(Q.dtype, [1, 1, 1, 2 * SLAB, D], V.layout)
    o_ring = gl.allocate_shared_memory(Q.dtype, [2, 1, 1, SLAB, D], dK.layout)
    full, empty = barriers(STAGES, 1), barriers(STAGES, 2)
    kv_full, kv_empty = barriers(1, 1), barriers(1, 2)
    if FUSED:
        ds_layout: gl.constexpr = gl.NVMMASharedLayout.get_default_for([2 * SLAB, BLOCK_Q], Q.dtype)
        ds_ring = gl.allocate_shared_memory(Q.dtype, [2, 2 * SLAB, BLOCK_Q], ds_layout)
        dq_ring = gl.allocate_shared_memory(gl.float32, [2, 1, 1, 64, 64], dQ.layout)
        ds_full, ds_empty = barriers(2, 2), barriers(2, 2)
    else:
        ds_ring = q_ring
        dq_ring = q_ring
        ds_full = full
        ds_empty = full
    fence_async_shared()
    rings = _Rings(q_ring, do_ring, k_ring, v_ring, ds_ring, dq_ring, o_ring)
    guards = _Guards(full, empty, kv_full, kv_empty, ds_full, ds_empty)
    sizes = schedule.KeySizes(key_heads, group, n_q, n_k, pairs, key_tiles)
    factors = Factors(c_scale, c_bias, factor, scale, largest)
    config = _Config(BLOCK_Q, STAGES, CAUSAL, HAS_BIAS, BIAS_GRADIENT, FUSED, FORM, GAIN, GRADIENT_GAIN)
    gl.warp_specialize(
        [
            (_consume, (dQ, dK, dV, bias, dB, rings, guards, sizes, factors, config, 0)),
            (_consume, (dQ, dK, dV, bias, dB, rings, guards, sizes, factors, config, 1)),
            (_produce, (Q, dO, K, V, rings, guards, sizes, config)),
        ],
        [4, 1],
        [REGISTERS, 24],
    )
