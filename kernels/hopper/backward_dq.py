# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The query kernel of the hopper backward: dQ alone, where results must repeat bit for bit. Three products.

Q, dO, dQ [B, H, n_q, D]; K, V [B, H / group, n_k, D]; bias [H].
A program takes turns at tiles of 2·SLAB queries of one head, in the forward's order: consumer w holds q and do of slab
w, and keys and values come in tiles [BLOCK_K, D_PAD] from the last visible down to the first, through rings of STAGES.
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
from .gradients import logit_gradient, seen, weights
from .schedule import SLAB
from .weights import BY_HEAD, EX2, TANH, TANH_FACTOR


@gluon.jit
def _produce(Q, dO, K, V, rings, signals, sizes, shape: gl.constexpr):
    """Load the slabs of every turn and the keys and values that they see, as soon as their buffers are empty."""
    BLOCK_K: gl.constexpr = shape[0]
    STAGES: gl.constexpr = shape[1]
    CAUSAL: gl.constexpr = shape[2]
    q_ring, do_ring, k_ring, v_ring, _ = rings
    q_full, q_empty, full, empty = signals
    step = 0
    for turn in range(schedule.turns(sizes[4], sizes[5], CAUSAL, AFRESH=True)):
        heads, group, n_q, n_k, pairs, query_tiles, lead = schedule.afresh(sizes)
        pair, tile = schedule.place(turn, pairs, query_tiles, CAUSAL, AFRESH=True)
        b = pair // heads
        head = pair % heads
        first = tile * (2 * SLAB)
        for w in gl.static_range(2):
            mbarrier.wait(q_empty.index(w), (turn & 1) ^ 1)
            mbarrier.expect(q_full.index(w), 2 * Q.block_type.nbytes)
            compat.load(Q, [b, head, first + w * SLAB, 0], q_full.index(w), q_ring.index(w))
            compat.load(dO, [b, head, first + w * SLAB, 0], q_full.index(w), do_ring.index(w))
        stop = schedule.last_key_tile(first, n_q, n_k, lead, BLOCK_K, 2, CAUSAL)
        for i in range(stop):
            column = (stop - 1 - i) * BLOCK_K - lead
            slot = step & (STAGES - 1)
            await_empty(empty, step, STAGES)
            mbarrier.expect(full.index(slot), 2 * K.block_type.nbytes)
            compat.load(K, [b, head // group, column, 0], full.index(slot), k_ring.index(slot))
            compat.load(V, [b, head // group, column, 0], full.index(slot), v_ring.index(slot))
            step += 1


@gluon.jit
def _accumulate(
    dq, q, do, k_ring, v_ring, full, empty, step, count, reach, c_scale, shift,
    BLOCK_K: gl.constexpr, STAGES: gl.constexpr, FORM: gl.constexpr, GAIN: gl.constexpr, MASKED: gl.constexpr,
):  # fmt: skip
    """Add dS k of ``count`` key tiles; row r of the slab sees the first tile's keys up to r + reach."""
    D: gl.constexpr = dq.shape[1]
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK_K, 16])
    p_layout: gl.constexpr = gl.DotOperandLayout(0, dq.type.layout, 2)
    zero = gl.zeros([SLAB, BLOCK_K], gl.float32, s_layout)
    for i in range(step, step + count):
        slot = i & (STAGES - 1)
        await_full(full, i, STAGES)
        k = k_ring.index(slot).reshape([BLOCK_K, D])
        v = v_ring.index(slot).reshape([BLOCK_K, D])
        s_token = warpgroup_mma(q, k.permute((1, 0)), zero, use_acc=False, is_async=True)
        dp_token = warpgroup_mma(do, v.permute((1, 0)), zero, use_acc=False, is_async=True)
        s = warpgroup_mma_wait(1, deps=(s_token,))
        p = weights(s, c_scale, shift, FORM)
        if MASKED:
            p = seen(p, reach, False)
        dp = warpgroup_mma_wait(0, deps=(dp_token,))
        ds = gl.convert_layout(logit_gradient(p, dp, GAIN).to(k_ring.dtype), p_layout)
        dq_token = warpgroup_mma(ds, k, dq, is_async=True)
        dq = warpgroup_mma_wait(0, deps=(dq_token,))
        mbarrier.arrive(empty.index(slot), count=1)
    return dq


@gluon.jit
def _keys(
    dq, q, do, k_ring, v_ring, full, empty, step, stop, reach, c_scale, shift,
    shape: gl.constexpr, FORM: gl.constexpr, GAIN: gl.constexpr,
):  # fmt: skip
    """Take all key tiles of a slab: the one that the diagonal crosses, then those below it."""
    BLOCK_K: gl.constexpr = shape[0]
    STAGES: gl.constexpr = shape[1]
    CAUSAL: gl.constexpr = shape[2]
    if CAUSAL:
        dq = _accumulate(
            dq, q, do, k_ring, v_ring, full, empty, step, 1, reach, c_scale, shift, BLOCK_K, STAGES, FORM, GAIN, True
        )
        step += 1
        stop -= 1
    return _accumulate(
        dq, q, do, k_ring, v_ring, full, empty, step, stop, reach, c_scale, shift, BLOCK_K, STAGES, FORM, GAIN, False
    )


@gluon.jit
def _pass_over(full, empty, step, stop, STAGES: gl.constexpr):
    """Let key tiles go by that only the other consumer sees."""
    for i in range(step, stop):
        await_full(full, i, STAGES)
        mbarrier.arrive(empty.index(i & (STAGES - 1)), count=1)


@gluon.jit
def _consume(
    dQ, bias, rings, signals, sizes, factors, W: gl.constexpr, shape: gl.constexpr, modes: gl.constexpr
):  # fmt: skip
    """Compute dQ[i] = scale·Σ_j dS[i, j] k_j for slab W of every turn."""
    BLOCK_K: gl.constexpr = shape[0]
    STAGES: gl.constexpr = shape[1]
    CAUSAL: gl.constexpr = shape[2]
    HAS_BIAS: gl.constexpr = modes[0]
    FORM: gl.constexpr = modes[1]
    GAIN: gl.constexpr = modes[2]
    q_ring, do_ring, k_ring, v_ring, o_ring = rings
    q_full, q_empty, full, empty = signals
    c_scale, c_bias, factor, scale, largest = factors
    D: gl.constexpr = dQ.block_type.shape[3]
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    q = q_ring.index(W).reshape([SLAB, D])
    do = do_ring.index(W).reshape([SLAB, D])
    o_tile = o_ring.index(W)
    shift = c_bias
    step = 0
    for turn in range(schedule.turns(sizes[4], sizes[5], CAUSAL, AFRESH=True)):
        heads, _, n_q, n_k, pairs, query_tiles, lead = schedule.afresh(sizes)
        pair, tile = schedule.place(turn, pairs, query_tiles, CAUSAL, AFRESH=True)
        first_row = tile * (2 * SLAB)
        row = first_row + W * SLAB
        stop = schedule.key_tiles(row, n_q, n_k, lead, BLOCK_K, CAUSAL)
        tiles = schedule.last_key_tile(first_row, n_q, n_k, lead, BLOCK_K, 2, CAUSAL)
        begin = step + tiles - stop
        _pass_over(full, empty, step, begin, STAGES)
        reach = row + n_k - n_q + lead - (stop - 1) * BLOCK_K
        dq = gl.zeros([SLAB, D], gl.float32, o_layout)
        mbarrier.wait(q_full.index(W), turn & 1)
        if FORM == BY_HEAD:
            b = gl.load(bias + pair % heads)
            if b * b <= largest * largest:
                dq = _keys(
                    dq, q, do, k_ring, v_ring, full, empty, begin, stop, reach,
                    c_scale * TANH_FACTOR, b * factor * TANH_FACTOR, shape, TANH, GAIN,
                )  # fmt: skip
            else:
                dq = _keys(
                    dq, q, do, k_ring, v_ring, full, empty, begin, stop, reach,
                    c_scale, b * factor, shape, EX2, GAIN,
                )  # fmt: skip
        else:
            if HAS_BIAS:
                shift = gl.load(bias + pair % heads) * factor
            dq = _keys(dq, q, do, k_ring, v_ring, full, empty, begin, stop, reach, c_scale, shift, shape, FORM, GAIN)
        # Triton 3.6 takes ``step + tiles`` for ``step``, and begins every turn at 0.
        step = schedule.again(step) + tiles
        mbarrier.arrive(q_empty.index(W), count=1)
        tma.store_wait(0)
        o_tile.reshape([SLAB, D]).store((dq * scale).to(dQ.dtype))
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
    rings = (q_ring, do_ring, k_ring, v_ring, o_ring)
    signals = (q_full, q_empty, full, empty)
    sizes = (heads, group, n_q, n_k, pairs, query_tiles, lead)
    factors = (c_scale, c_bias, factor, scale, largest)
    shape: gl.constexpr = (BLOCK_K, STAGES, CAUSAL)
    modes: gl.constexpr = (HAS_BIAS, FORM, GAIN)
    gl.warp_specialize(
        [
            (_consume, (dQ, bias, rings, signals, sizes, factors, 0, shape, modes)),
            (_consume, (dQ, bias, rings, signals, sizes, factors, 1, shape, modes)),
            (_produce, (Q, dO, K, V, rings, signals, sizes, shape)),
        ],
        [4, 1],
        [REGISTERS, 24],
    )
