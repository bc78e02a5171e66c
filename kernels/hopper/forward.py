# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The forward kernel of the hopper backend: warp-specialised, persistent, fed by TMA.

Q, O [B, H, n_q, D]; K, V [B, H / group, n_k, D]; bias [H]; sums [B·H, slabs, WARPS] float32, a slab is 64 rows of q.
A work item is a tile of CONSUMERS slabs of one head. The warp groups, each with its own loop over the work items: the
producer loads q [64, D_PAD] once an item and k, v [BLOCK_K, D_PAD] into rings of STAGES buffers; consumer c computes
slab c. Each consumer has two slabs of q, so that the next item's q, and first keys, are there when an item ends.
Keys run from the last visible tile down to the first, so that the diagonal, the only tile with a mask, comes first.
A barrier pair (full, empty) guards each buffer; the n-th use of a buffer waits for phase n & 1 of full. Consumers start
their products one after the other (``barriers.ping_pong_wait``), once a key tile, also one that they pass over.
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
from .barriers import await_empty, await_full, barriers, ping_pong_arrive, ping_pong_wait, release_next_kernel
from .compat import aggregate
from .gradients import causal_mask
from .schedule import SLAB, WARPS
from .weights import (
    BY_HEAD,
    GAIN_BF16,
    GAIN_FP16,
    MIXED,
    MIXED_BF16,
    MIXED_FP16,
    OUTPUTS,
    TANH,
    TANH_BF16,
    TANH_FACTOR,
    TANH_FP16,
    UNPACK_BF16,
    UNPACK_FP16,
    UNPACKED,
)

LATE = gl.constexpr(1)
"""Units of two tiles for each program that are distributed from the longest tile down: their keys fit in the L2."""
SLABS = gl.constexpr(2)
"""Slabs of q for each consumer: a work item's, and the next one's."""


@aggregate
class _Rings:
    """Buffers in shared memory: SLABS of q a consumer, STAGES of k and v, one of the output a consumer."""

    q: gl.shared_memory_descriptor
    k: gl.shared_memory_descriptor
    v: gl.shared_memory_descriptor
    o: gl.shared_memory_descriptor


@aggregate
class _Guards:
    """A barrier for each buffer that is full, and one for each that is empty."""

    q_full: gl.shared_memory_descriptor
    q_empty: gl.shared_memory_descriptor
    k_full: gl.shared_memory_descriptor
    k_empty: gl.shared_memory_descriptor
    v_full: gl.shared_memory_descriptor
    v_empty: gl.shared_memory_descriptor


@aggregate
class _Factors:
    """factor·scale, factor·bias, factor, and the lowest bias of TANH."""

    c_scale: gl.tensor
    c_bias: gl.tensor
    factor: gl.tensor
    lowest: gl.tensor


@aggregate
class _Config:
    """Compile-time configuration, as ``ForwardConfig`` explains it."""

    block_k: gl.constexpr
    consumers: gl.constexpr
    stages: gl.constexpr
    causal: gl.constexpr
    has_bias: gl.constexpr
    sums: gl.constexpr
    form: gl.constexpr
    overlapped: gl.constexpr


@gluon.jit
def _q_buffer(item, ME: gl.constexpr, CONSUMERS: gl.constexpr):
    """Return the index in the ring of the slab of q that consumer ME takes for a work item."""
    return (item & (SLABS - 1)) * CONSUMERS + ME


@gluon.jit
def _produce(Q, K, V, rings, guards, sizes, config):
    """Load every tile of every work item, as soon as its buffer is empty."""
    BLOCK_K: gl.constexpr = config.block_k
    CONSUMERS: gl.constexpr = config.consumers
    STAGES: gl.constexpr = config.stages
    CAUSAL: gl.constexpr = config.causal
    heads, n_q, n_k, lead = sizes.heads, sizes.n_q, sizes.n_k, sizes.lead
    step = 0
    for item in range(schedule.work_items(sizes.pairs, sizes.tiles, CAUSAL, LATE)):
        pair, tile = schedule.work_item(item, sizes.pairs, sizes.tiles, CAUSAL, LATE)
        first = schedule.first_row(tile, n_q, sizes.tiles, CONSUMERS)
        kv_head = pair % heads // sizes.group
        stop = schedule.last_key_tile(first, n_q, n_k, lead, BLOCK_K, CONSUMERS, CAUSAL)
        for c in gl.static_range(CONSUMERS):
            at = _q_buffer(item, c, CONSUMERS)
            mbarrier.wait(guards.q_empty.index(at), ((item & SLABS) // SLABS) ^ 1)
            mbarrier.expect(guards.q_full.index(at), Q.block_type.nbytes)
            row = first + c * SLAB
            compat.load(Q, [pair // heads, pair % heads, row, 0], guards.q_full.index(at), rings.q.index(at))
        # k of a step only after v of the step before, which has the same index in its ring.
        for i in range(stop):
            column = (stop - 1 - i) * BLOCK_K - lead
            slot = step & (STAGES - 1)
            await_empty(guards.k_empty, step, STAGES)
            mbarrier.expect(guards.k_full.index(slot), K.block_type.nbytes)
            compat.load(K, [pair // heads, kv_head, column, 0], guards.k_full.index(slot), rings.k.index(slot))
            await_empty(guards.v_empty, step, STAGES)
            mbarrier.expect(guards.v_full.index(slot), V.block_type.nbytes)
            compat.load(V, [pair // heads, kv_head, column, 0], guards.v_full.index(slot), rings.v.index(slot))
            step += 1


@gluon.jit
def _weights(s, c_scale, shift, first, FORM: gl.constexpr, MASKED: gl.constexpr, dtype: gl.constexpr):
    """Return the weights of products s [64, BLOCK_K].

    first: the last key that row 0 sees, counted from the tile's first key; row i sees keys up to first + i.
    """
    if dtype == gl.bfloat16:
        asm: gl.constexpr = TANH_BF16 if FORM == TANH else MIXED_BF16
        p = gl.inline_asm_elementwise(asm, OUTPUTS, [s, c_scale, shift], dtype=gl.bfloat16, is_pure=True, pack=2)
    else:
        text: gl.constexpr = TANH_FP16 if FORM == TANH else MIXED_FP16
        p = gl.inline_asm_elementwise(text, OUTPUTS, [s, c_scale, shift], dtype=gl.float16, is_pure=True, pack=2)
    if MASKED:
        p = causal_mask(p, first, False)
    return p


@gluon.jit
def _accumulate(
    acc, p, zero, q, rings, guards, step, stop, c_scale, shift, config, FORM: gl.constexpr, ME: gl.constexpr
):  # fmt: skip
    """Take key tiles ``step`` to ``stop``: add p·v of the tile before and compute this tile's weights.

    What the next tile needs is waited for while this one's products run. Overlapped: a tile is waited for where it is
    used, since with two STAGES the next one is not loaded yet; and its weights are computed while p·v runs.
    """
    D: gl.constexpr = acc.shape[1]
    BLOCK_K: gl.constexpr = config.block_k
    STAGES: gl.constexpr = config.stages
    OVERLAPPED: gl.constexpr = config.overlapped
    if not OVERLAPPED:  # noqa: SIM102 - known when compiled, the other is not
        if step < stop:
            await_full(guards.k_full, step, STAGES)
            await_full(guards.v_full, step - 1, STAGES)
    for i in range(step, stop):
        slot = i & (STAGES - 1)
        before = (i - 1) & (STAGES - 1)
        if OVERLAPPED:
            await_full(guards.k_full, i, STAGES)
        k_tile = rings.k.index(slot).reshape([BLOCK_K, D])
        v_tile = rings.v.index(before).reshape([BLOCK_K, D])
        ping_pong_wait(i, ME)
        s_token = warpgroup_mma(q, k_tile.permute((1, 0)), zero, use_acc=False, is_async=True)
        if OVERLAPPED:
            await_full(guards.v_full, i - 1, STAGES)
        acc_token = warpgroup_mma(p, v_tile, acc, is_async=True)
        ping_pong_arrive(i, ME, config.consumers)
        if not OVERLAPPED:
            await_full(guards.k_full, gl.minimum(i + 1, stop - 1), STAGES)
            await_full(guards.v_full, i, STAGES)
        s = warpgroup_mma_wait(1, deps=(s_token,))
        mbarrier.arrive(guards.k_empty.index(slot), count=1)
        p_next = _weights(s, c_scale, shift, 0, FORM, False, rings.k.dtype)
        if OVERLAPPED:
            # Long done, but a branch: ptxas moves the next wait above most of the weights unless one lies between.
            await_full(guards.v_full, i - 1, STAGES)
        acc = warpgroup_mma_wait(0, deps=(acc_token,))
        mbarrier.arrive(guards.v_empty.index(before), count=1)
        p = gl.convert_layout(p_next, p.type.layout)
        if not OVERLAPPED:
            # Triton 3.6 puts one into each pass of this loop, otherwise between ping_pong_wait and the products.
            compat.barrier()
    return acc, p


@gluon.jit
def _pass_over(guards, step, count, config, ME: gl.constexpr):
    """Release ``count`` key tiles that only other consumers see."""
    STAGES: gl.constexpr = config.stages
    for i in range(step, step + count):
        slot = i & (STAGES - 1)
        ping_pong_wait(i, ME)
        ping_pong_arrive(i, ME, config.consumers)
        await_full(guards.k_full, i, STAGES)
        mbarrier.arrive(guards.k_empty.index(slot), count=1)
        await_full(guards.v_full, i, STAGES)
        mbarrier.arrive(guards.v_empty.index(slot), count=1)


@gluon.jit
def _attend(
    s, at, zero, rings, guards, step, stop, first, c_scale, shift, config, FORM: gl.constexpr, ME: gl.constexpr
):  # fmt: skip
    """Return Σ_j weights v_j of a slab over ``stop`` key tiles but the last, and the weights of that one.

    s: the products with the first tile, at ``step``. at: the index of the slab of q in its ring.
    first: the last key that row 0 sees, counted from the first tile's first key; row i sees keys up to first + i.
    """
    D: gl.constexpr = rings.q.shape[4]
    dtype: gl.constexpr = rings.q.dtype
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    q = rings.q.index(schedule.opaque_in_branch(at, FORM == TANH)).reshape([SLAB, D])
    p = gl.convert_layout(_weights(s, c_scale, shift, first, FORM, config.causal, dtype), p_layout)
    acc = gl.zeros([SLAB, D], gl.float32, o_layout)
    return _accumulate(acc, p, zero, q, rings, guards, step + 1, step + stop, c_scale, shift, config, FORM, ME)


@gluon.jit
def _consume(O, bias, sums, rings, guards, sizes, factors, config, ME: gl.constexpr):
    """o[i] = Σ_j sigmoid(scale·q_i·k_j + b) v_j for one slab of every work item."""
    BLOCK_K: gl.constexpr = config.block_k
    CONSUMERS: gl.constexpr = config.consumers
    STAGES: gl.constexpr = config.stages
    CAUSAL: gl.constexpr = config.causal
    heads, n_q, n_k, lead = sizes.heads, sizes.n_q, sizes.n_k, sizes.lead
    c_scale, factor = factors.c_scale, factors.factor
    D: gl.constexpr = O.block_type.shape[3]
    dtype: gl.constexpr = O.dtype
    GAIN: gl.constexpr = GAIN_BF16 if dtype == gl.bfloat16 else GAIN_FP16
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_K, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    o_tile = rings.o.index(ME)
    zero = gl.zeros([SLAB, BLOCK_K], gl.float32, s_layout)
    shift = factors.c_bias
    step = 0
    if ME == CONSUMERS - 1:
        ping_pong_arrive(step, ME, CONSUMERS)
    for item in range(schedule.work_items(sizes.pairs, sizes.tiles, CAUSAL, LATE)):
        pair, tile = schedule.work_item(item, sizes.pairs, sizes.tiles, CAUSAL, LATE)
        first_row = schedule.first_row(tile, n_q, sizes.tiles, CONSUMERS)
        row = first_row + ME * SLAB
        stop = schedule.key_tiles(row, n_q, n_k, lead, BLOCK_K, CAUSAL)
        passed = schedule.last_key_tile(first_row, n_q, n_k, lead, BLOCK_K, CONSUMERS, CAUSAL) - stop
        _pass_over(guards, step, passed, config, ME)
        step += passed

        at = _q_buffer(item, ME, CONSUMERS)
        slot = step & (STAGES - 1)
        mbarrier.wait(guards.q_full.index(at), (item & SLABS) // SLABS)
        await_full(guards.k_full, step, STAGES)
        q = rings.q.index(at).reshape([SLAB, D])
        k_tile = rings.k.index(slot).reshape([BLOCK_K, D])
        ping_pong_wait(step, ME)
        s = warpgroup_mma(q, k_tile.permute((1, 0)), zero, use_acc=False, is_async=True)
        ping_pong_arrive(step, ME, CONSUMERS)
        s = warpgroup_mma_wait(0, deps=(s,))
        mbarrier.arrive(guards.k_empty.index(slot), count=1)

        first = row + n_k - n_q + lead - (stop - 1) * BLOCK_K
        if config.form == BY_HEAD:
            b = gl.load(bias + pair % heads)
            if b >= factors.lowest:
                acc, p = _attend(
                    s, at, zero, rings, guards, step, stop, first, c_scale * TANH_FACTOR, b * factor * TANH_FACTOR,
                    config, TANH, ME,
                )  # fmt: skip
            else:
                acc, p = _attend(
                    s, at, zero, rings, guards, step, stop, first, c_scale, b * factor, config, MIXED, ME
                )  # fmt: skip
        else:
            if config.has_bias:
                shift = gl.load(bias + pair % heads) * factor
            acc, p = _attend(
                s, at, zero, rings, guards, step, stop, first, c_scale, shift, config, config.form, ME
            )  # fmt: skip
        mbarrier.arrive(guards.q_empty.index(at), count=1)

        step += stop - 1
        slot = step & (STAGES - 1)
        await_full(guards.v_full, step, STAGES)
        v_tile = rings.v.index(slot).reshape([BLOCK_K, D])
        acc = warpgroup_mma(p, v_tile, acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(guards.v_empty.index(slot), count=1)
        step += 1

        o = (acc * (1.0 / GAIN)).to(dtype)
        tma.store_wait(0)
        o_tile.reshape([SLAB, D]).store(o)
        fence_async_shared()
        if row >= 0:
            compat.store(O, [pair // heads, pair % heads, row, 0], o_tile)
        if config.sums:
            rows = row + gl.arange(0, SLAB, gl.SliceLayout(1, o_layout))
            # By pairs, as they are stored: .to(float32) rounds them again, each alone, where the tanh are computed.
            unpack: gl.constexpr = UNPACK_BF16 if dtype == gl.bfloat16 else UNPACK_FP16
            o = gl.inline_asm_elementwise(unpack, UNPACKED, [o], dtype=gl.float32, is_pure=True, pack=2)
            squares = gl.where((rows >= 0) & (rows < n_q), gl.sum(o * o, 1), 0.0)
            # A partial sum for each warp, none of which waits for another.
            parts = gl.sum(squares.reshape([WARPS, SLAB // WARPS]), 1)
            slab = (pair * sizes.tiles + tile) * CONSUMERS + ME
            gl.store(sums + slab * WARPS + gl.arange(0, WARPS, parts.type.layout), parts)
    tma.store_wait(0)


@gluon.jit(do_not_specialize=["heads", "group", "n_q", "n_k", "pairs", "query_tiles", "lead"])
def forward_kernel(
    Q, K, V, O, bias, sums,
    heads, group, n_q, n_k, pairs, query_tiles, lead, c_scale, c_bias, factor, lowest,
    BLOCK_K: gl.constexpr, CONSUMERS: gl.constexpr, STAGES: gl.constexpr, REGISTERS: gl.constexpr,
    CAUSAL: gl.constexpr, HAS_BIAS: gl.constexpr, SUMS: gl.constexpr, FORM: gl.constexpr, OVERLAPPED: gl.constexpr,
):  # fmt: skip
    """O = sigmoid(scale·Q Kᵀ + b) V; grid (programs,), one for each multiprocessor at most.

    With sums, the kernel after this one measures statistics and may begin early: it waits before it reads ``sums``.
    """
    if SUMS:
        release_next_kernel(n_q)
    D: gl.constexpr = Q.block_type.shape[3]
    q_ring = gl.allocate_shared_memory(Q.dtype, [SLABS * CONSUMERS, 1, 1, SLAB, D], Q.layout)
    o_ring = gl.allocate_shared_memory(Q.dtype, [CONSUMERS, 1, 1, SLAB, D], O.layout)
    k_ring = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_K, D], K.layout)
    v_ring = gl.allocate_shared_memory(Q.dtype, [STAGES, 1, 1, BLOCK_K, D], V.layout)
    q_full, q_empty = barriers(SLABS * CONSUMERS, 1), barriers(SLABS * CONSUMERS, 1)
    k_full, k_empty = barriers(STAGES, 1), barriers(STAGES, CONSUMERS)
    v_full, v_empty = barriers(STAGES, 1), barriers(STAGES, CONSUMERS)
    fence_async_shared()
    rings = _Rings(q_ring, k_ring, v_ring, o_ring)
    guards = _Guards(q_full, q_empty, k_full, k_empty, v_full, v_empty)
    sizes = schedule.Sizes(heads, group, n_q, n_k, pairs, query_tiles, lead)
    factors = _Factors(c_scale, c_bias, factor, lowest)
    config = _Config(BLOCK_K, CONSUMERS, STAGES, CAUSAL, HAS_BIAS, SUMS, FORM, OVERLAPPED)
    gl.static_assert(CONSUMERS == 2 or CONSUMERS == 4)
    if CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_consume, (O, bias, sums, rings, guards, sizes, factors, config, 0)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, config, 1)),
                (_produce, (Q, K, V, rings, guards, sizes, config)),
            ],
            [4, 1],
            [REGISTERS, 24],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (O, bias, sums, rings, guards, sizes, factors, config, 0)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, config, 1)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, config, 2)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, config, 3)),
                (_produce, (Q, K, V, rings, guards, sizes, config)),
            ],
            [4, 4, 4, 1],
            [REGISTERS, REGISTERS, REGISTERS, 24],
        )
