# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The forward kernel of the hopper backend: warp-specialised, persistent, fed by TMA.

Q, O [B, H, n_q, D]; K, V [B, H / group, n_k, D]; bias [H]; sums [B·H, slabs, WARPS] float32, a slab is 64 rows of q.
A program takes turns at tiles of CONSUMERS slabs of one head. Its warp groups, each with its own loop over the turns:
the producer loads q [64, D_PAD] once a turn and k, v [BLOCK_K, D_PAD] into rings of STAGES; consumer c computes slab c.
Each consumer has two slabs of q, so that the next turn's q, and first keys, are there when a turn ends.
Keys run from the last visible tile down to the first, so that the diagonal, the only place for a mask, comes first.
A barrier pair (full, empty) guards each buffer; the n-th use of a buffer waits for phase n & 1 of full. Consumers start
their products in turn (``barriers.await_turn``), once a key tile, also one that they pass over.
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
from .barriers import await_empty, await_full, await_turn, barriers, pass_turn, release_next_kernel
from .gradients import seen
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
"""Folds for each program that are dealt out from the longest tile down: their keys and values fit in the L2."""
SLABS = gl.constexpr(2)
"""Slabs of q for each consumer: a turn's, and the next one's."""


@gluon.jit
def _place(turn, SLAB_INDEX: gl.constexpr, CONSUMERS: gl.constexpr):
    """Return where in the ring a turn's slab of q is."""
    return (turn & (SLABS - 1)) * CONSUMERS + SLAB_INDEX


@gluon.jit
def _produce(Q, K, V, rings, guards, sizes, shape: gl.constexpr):
    """Load every tile of every turn, as soon as its buffer is empty."""
    BLOCK_K: gl.constexpr = shape[0]
    CONSUMERS: gl.constexpr = shape[1]
    STAGES: gl.constexpr = shape[2]
    CAUSAL: gl.constexpr = shape[3]
    q_ring, k_ring, v_ring, _ = rings
    q_full, q_empty, k_full, k_empty, v_full, v_empty = guards
    heads, group, n_q, n_k, pairs, query_tiles, lead = sizes
    step = 0
    for turn in range(schedule.turns(pairs, query_tiles, CAUSAL, LATE)):
        pair, tile = schedule.place(turn, pairs, query_tiles, CAUSAL, LATE)
        first = schedule.first_row(tile, n_q, query_tiles, CONSUMERS)
        kv_head = pair % heads // group
        stop = schedule.last_key_tile(first, n_q, n_k, lead, BLOCK_K, CONSUMERS, CAUSAL)
        for c in gl.static_range(CONSUMERS):
            place = _place(turn, c, CONSUMERS)
            mbarrier.wait(q_empty.index(place), ((turn & SLABS) // SLABS) ^ 1)
            mbarrier.expect(q_full.index(place), Q.block_type.nbytes)
            row = first + c * SLAB
            compat.load(Q, [pair // heads, pair % heads, row, 0], q_full.index(place), q_ring.index(place))
        # k of a step only after v of the step before, which has the same place in its ring.
        for i in range(stop):
            column = (stop - 1 - i) * BLOCK_K - lead
            slot = step & (STAGES - 1)
            await_empty(k_empty, step, STAGES)
            mbarrier.expect(k_full.index(slot), K.block_type.nbytes)
            compat.load(K, [pair // heads, kv_head, column, 0], k_full.index(slot), k_ring.index(slot))
            await_empty(v_empty, step, STAGES)
            mbarrier.expect(v_full.index(slot), V.block_type.nbytes)
            compat.load(V, [pair // heads, kv_head, column, 0], v_full.index(slot), v_ring.index(slot))
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
        p = seen(p, first, False)
    return p


@gluon.jit
def _accumulate(
    acc, p, zero, q, k_ring, v_ring, k_full, k_empty, v_full, v_empty, step, stop, c_scale, shift,
    BLOCK_K: gl.constexpr, STAGES: gl.constexpr, FORM: gl.constexpr, OVERLAPPED: gl.constexpr,
    ME: gl.constexpr, CONSUMERS: gl.constexpr,
):  # fmt: skip
    """Take key tiles ``step`` to ``stop``: add p·v of the tile before and turn this tile's products into weights.

    What the next tile needs is waited for while this one's products run. OVERLAPPED: a tile is waited for where it is
    used, since with two STAGES the next one is not loaded yet; and its weights are computed while p·v runs.
    """
    D: gl.constexpr = acc.shape[1]
    if not OVERLAPPED:  # noqa: SIM102 - known when compiled, the other is not
        if step < stop:
            await_full(k_full, step, STAGES)
            await_full(v_full, step - 1, STAGES)
    for i in range(step, stop):
        slot = i & (STAGES - 1)
        before = (i - 1) & (STAGES - 1)
        if OVERLAPPED:
            await_full(k_full, i, STAGES)
        k_tile = k_ring.index(slot).reshape([BLOCK_K, D])
        v_tile = v_ring.index(before).reshape([BLOCK_K, D])
        await_turn(i, ME)
        s_token = warpgroup_mma(q, k_tile.permute((1, 0)), zero, use_acc=False, is_async=True)
        if OVERLAPPED:
            await_full(v_full, i - 1, STAGES)
        acc_token = warpgroup_mma(p, v_tile, acc, is_async=True)
        pass_turn(i, ME, CONSUMERS)
        if not OVERLAPPED:
            await_full(k_full, gl.minimum(i + 1, stop - 1), STAGES)
            await_full(v_full, i, STAGES)
        s = warpgroup_mma_wait(1, deps=(s_token,))
        mbarrier.arrive(k_empty.index(slot), count=1)
        p_next = _weights(s, c_scale, shift, 0, FORM, False, k_ring.dtype)
        if OVERLAPPED:
            # Long done, but a branch: ptxas moves the next wait above most of the weights unless one lies between.
            await_full(v_full, i - 1, STAGES)
        acc = warpgroup_mma_wait(0, deps=(acc_token,))
        mbarrier.arrive(v_empty.index(before), count=1)
        p = gl.convert_layout(p_next, p.type.layout)
        if not OVERLAPPED:
            # Triton 3.6 puts one into each pass of this loop, otherwise between await_turn and the products.
            compat.barrier()
    return acc, p


@gluon.jit
def _pass_over(
    k_full, k_empty, v_full, v_empty, step, count, STAGES: gl.constexpr, ME: gl.constexpr, CONSUMERS: gl.constexpr
):
    """Let ``count`` key tiles go by that only other consumers see."""
    for i in range(step, step + count):
        slot = i & (STAGES - 1)
        await_turn(i, ME)
        pass_turn(i, ME, CONSUMERS)
        await_full(k_full, i, STAGES)
        mbarrier.arrive(k_empty.index(slot), count=1)
        await_full(v_full, i, STAGES)
        mbarrier.arrive(v_empty.index(slot), count=1)


@gluon.jit
def _attend(
    s, place, zero, rings, guards, step, stop, first, c_scale, shift,
    SLAB_INDEX: gl.constexpr, shape: gl.constexpr, FORM: gl.constexpr, OVERLAPPED: gl.constexpr,
):  # fmt: skip
    """Return Σ_j weights v_j of a slab over ``stop`` key tiles but the last, and the weights of that one.

    s: the products with the first tile, at ``step``.
    first: the last key that row 0 sees, counted from the first tile's first key; row i sees keys up to first + i.
    """
    BLOCK_K: gl.constexpr = shape[0]
    CONSUMERS: gl.constexpr = shape[1]
    STAGES: gl.constexpr = shape[2]
    CAUSAL: gl.constexpr = shape[3]
    q_ring, k_ring, v_ring, _ = rings
    _, _, k_full, k_empty, v_full, v_empty = guards
    D: gl.constexpr = q_ring.shape[4]
    dtype: gl.constexpr = q_ring.dtype
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    q = q_ring.index(schedule.apart(place, FORM == TANH)).reshape([SLAB, D])
    p = gl.convert_layout(_weights(s, c_scale, shift, first, FORM, CAUSAL, dtype), p_layout)
    acc = gl.zeros([SLAB, D], gl.float32, o_layout)
    return _accumulate(
        acc, p, zero, q, k_ring, v_ring, k_full, k_empty, v_full, v_empty,
        step + 1, step + stop, c_scale, shift, BLOCK_K, STAGES, FORM, OVERLAPPED, SLAB_INDEX, CONSUMERS,
    )  # fmt: skip


@gluon.jit
def _consume(
    O, bias, sums, rings, guards, sizes, factors,
    SLAB_INDEX: gl.constexpr, shape: gl.constexpr, modes: gl.constexpr,
):  # fmt: skip
    """o[i] = Σ_j sigmoid(scale·q_i·k_j + b) v_j for one slab a turn."""
    BLOCK_K: gl.constexpr = shape[0]
    CONSUMERS: gl.constexpr = shape[1]
    STAGES: gl.constexpr = shape[2]
    CAUSAL: gl.constexpr = shape[3]
    HAS_BIAS: gl.constexpr = modes[0]
    SUMS: gl.constexpr = modes[1]
    FORM: gl.constexpr = modes[2]
    OVERLAPPED: gl.constexpr = modes[3]
    q_ring, k_ring, v_ring, o_ring = rings
    q_full, q_empty, k_full, k_empty, v_full, v_empty = guards
    heads, _, n_q, n_k, pairs, query_tiles, lead = sizes
    c_scale, c_bias, factor, lowest = factors
    D: gl.constexpr = O.block_type.shape[3]
    dtype: gl.constexpr = O.dtype
    GAIN: gl.constexpr = GAIN_BF16 if dtype == gl.bfloat16 else GAIN_FP16
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_K, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    o_tile = o_ring.index(SLAB_INDEX)
    zero = gl.zeros([SLAB, BLOCK_K], gl.float32, s_layout)
    shift = c_bias
    step = 0
    if SLAB_INDEX == CONSUMERS - 1:
        pass_turn(step, SLAB_INDEX, CONSUMERS)
    for turn in range(schedule.turns(pairs, query_tiles, CAUSAL, LATE)):
        pair, tile = schedule.place(turn, pairs, query_tiles, CAUSAL, LATE)
        first_row = schedule.first_row(tile, n_q, query_tiles, CONSUMERS)
        row = first_row + SLAB_INDEX * SLAB
        stop = schedule.key_tiles(row, n_q, n_k, lead, BLOCK_K, CAUSAL)
        passed = schedule.last_key_tile(first_row, n_q, n_k, lead, BLOCK_K, CONSUMERS, CAUSAL) - stop
        _pass_over(k_full, k_empty, v_full, v_empty, step, passed, STAGES, SLAB_INDEX, CONSUMERS)
        step += passed

        place = _place(turn, SLAB_INDEX, CONSUMERS)
        slot = step & (STAGES - 1)
        mbarrier.wait(q_full.index(place), (turn & SLABS) // SLABS)
        await_full(k_full, step, STAGES)
        q = q_ring.index(place).reshape([SLAB, D])
        k_tile = k_ring.index(slot).reshape([BLOCK_K, D])
        await_turn(step, SLAB_INDEX)
        s = warpgroup_mma(q, k_tile.permute((1, 0)), zero, use_acc=False, is_async=True)
        pass_turn(step, SLAB_INDEX, CONSUMERS)
        s = warpgroup_mma_wait(0, deps=(s,))
        mbarrier.arrive(k_empty.index(slot), count=1)

        first = row + n_k - n_q + lead - (stop - 1) * BLOCK_K
        if FORM == BY_HEAD:
            b = gl.load(bias + pair % heads)
            if b >= lowest:
                acc, p = _attend(
                    s, place, zero, rings, guards, step, stop, first, c_scale * TANH_FACTOR, b * factor * TANH_FACTOR,
                    SLAB_INDEX, shape, TANH, OVERLAPPED,
                )  # fmt: skip
            else:
                acc, p = _attend(
                    s, place, zero, rings, guards, step, stop, first, c_scale, b * factor,
                    SLAB_INDEX, shape, MIXED, OVERLAPPED,
                )  # fmt: skip
        else:
            if HAS_BIAS:
                shift = gl.load(bias + pair % heads) * factor
            acc, p = _attend(
                s, place, zero, rings, guards, step, stop, first, c_scale, shift, SLAB_INDEX, shape, FORM, OVERLAPPED
            )
        mbarrier.arrive(q_empty.index(place), count=1)

        step += stop - 1
        slot = step & (STAGES - 1)
        await_full(v_full, step, STAGES)
        v_tile = v_ring.index(slot).reshape([BLOCK_K, D])
        acc = warpgroup_mma(p, v_tile, acc, is_async=True)
        acc = warpgroup_mma_wait(0, deps=(acc,))
        mbarrier.arrive(v_empty.index(slot), count=1)
        step += 1

        o = (acc * (1.0 / GAIN)).to(dtype)
        tma.store_wait(0)
        o_tile.reshape([SLAB, D]).store(o)
        fence_async_shared()
        if row >= 0:
            compat.store(O, [pair // heads, pair % heads, row, 0], o_tile)
        if SUMS:
            rows = row + gl.arange(0, SLAB, gl.SliceLayout(1, o_layout))
            # By pairs, as they are stored: .to(float32) rounds them again, each alone, where the tanh are computed.
            unpack: gl.constexpr = UNPACK_BF16 if dtype == gl.bfloat16 else UNPACK_FP16
            o = gl.inline_asm_elementwise(unpack, UNPACKED, [o], dtype=gl.float32, is_pure=True, pack=2)
            squares = gl.where((rows >= 0) & (rows < n_q), gl.sum(o * o, 1), 0.0)
            # A part for each warp, none of which waits for another.
            parts = gl.sum(squares.reshape([WARPS, SLAB // WARPS]), 1)
            slab = (pair * query_tiles + tile) * CONSUMERS + SLAB_INDEX
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
    rings = (q_ring, k_ring, v_ring, o_ring)
    guards = (q_full, q_empty, k_full, k_empty, v_full, v_empty)
    sizes = (heads, group, n_q, n_k, pairs, query_tiles, lead)
    factors = (c_scale, c_bias, factor, lowest)
    shape: gl.constexpr = (BLOCK_K, CONSUMERS, STAGES, CAUSAL)
    modes: gl.constexpr = (HAS_BIAS, SUMS, FORM, OVERLAPPED)
    gl.static_assert(CONSUMERS == 2 or CONSUMERS == 4)
    if CONSUMERS == 2:
        gl.warp_specialize(
            [
                (_consume, (O, bias, sums, rings, guards, sizes, factors, 0, shape, modes)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, 1, shape, modes)),
                (_produce, (Q, K, V, rings, guards, sizes, shape)),
            ],
            [4, 1],
            [REGISTERS, 24],
        )
    else:
        gl.warp_specialize(
            [
                (_consume, (O, bias, sums, rings, guards, sizes, factors, 0, shape, modes)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, 1, shape, modes)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, 2, shape, modes)),
                (_consume, (O, bias, sums, rings, guards, sizes, factors, 3, shape, modes)),
                (_produce, (Q, K, V, rings, guards, sizes, shape)),
            ],
            [4, 4, 4, 1],
            [REGISTERS, REGISTERS, REGISTERS, 24],
        )
