# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Tiles: loads, stores, the tile of a program, weights from logits.

Shapes: a tensor is [B, H, N, D]; a tile is [BLOCK, D_PAD], D_PAD the power of two that holds D. A tensor comes as a TMA
descriptor of block [1, 1, BLOCK, D_PAD], or as a pointer with strides, rows aligned to 16 bytes. Both load 0 and store
nothing outside [N, D].
"""

import triton
import triton.language as tl

from .. import sigmoid_forms

EX2, TANH = tl.constexpr(sigmoid_forms.EX2), tl.constexpr(sigmoid_forms.TANH)
RCP = tl.constexpr("rcp.approx.ftz.f32 $0, $1;")
TANH_APPROX = tl.constexpr("tanh.approx.f32 $0, $1;")


@triton.jit
def tile_of_program(tile, tiles, pairs, together, LONGEST_LAST: tl.constexpr):
    """Return (pair, tile) of a program: ``together`` pairs (b, h) share the cache, longest tiles come first."""
    group = tile // (together * tiles)
    rest = tile % (together * tiles)
    size = tl.minimum(together, pairs - group * together)
    index = rest // size
    if LONGEST_LAST:
        index = tiles - 1 - index
    return group * together + rest % size, index


@triton.jit
def _offsets(row, stride, STEP: tl.constexpr, BLOCK: tl.constexpr, D_PAD: tl.constexpr):
    stride = tl.multiple_of(stride, STEP)
    rows = tl.arange(0, BLOCK).to(tl.int64)
    return row.to(tl.int64) * stride + (rows[:, None] * stride + tl.arange(0, D_PAD)[None, :])


@triton.jit
def _inside(row, length, BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr):
    inside = (row + tl.arange(0, BLOCK) < length)[:, None]
    if D != D_PAD:
        inside = inside & (tl.arange(0, D_PAD) < D)[None, :]
    return inside


@triton.jit
def load(
    x, b, h, row, length, s_b, s_h, s_n, BLOCK: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, TMA: tl.constexpr
):
    """Return rows ``row`` .. ``row + BLOCK`` of x[b, h], [BLOCK, D_PAD]."""
    if TMA:
        return x.load([b, h, row, 0]).reshape(BLOCK, D_PAD)
    else:
        step: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
        start = x + b.to(tl.int64) * tl.multiple_of(s_b, step) + h.to(tl.int64) * tl.multiple_of(s_h, step)
        return tl.load(
            start + _offsets(row, s_n, step, BLOCK, D_PAD), mask=_inside(row, length, BLOCK, D, D_PAD), other=0.0
        )


@triton.jit
def store(
    x,
    tile,
    b,
    h,
    row,
    length,
    s_b,
    s_h,
    s_n,
    BLOCK: tl.constexpr,
    D: tl.constexpr,
    D_PAD: tl.constexpr,
    TMA: tl.constexpr,
):
    """Write ``tile`` [BLOCK, D_PAD] to rows ``row`` .. ``row + BLOCK`` of x[b, h], in x's type."""
    if TMA:
        x.store([b, h, row, 0], tile.to(x.dtype).reshape(1, 1, BLOCK, D_PAD))
    else:
        step: tl.constexpr = 128 // x.dtype.element_ty.primitive_bitwidth
        start = x + b.to(tl.int64) * tl.multiple_of(s_b, step) + h.to(tl.int64) * tl.multiple_of(s_h, step)
        inside = _inside(row, length, BLOCK, D, D_PAD)
        tl.store(start + _offsets(row, s_n, step, BLOCK, D_PAD), tile.to(x.dtype.element_ty), mask=inside)


@triton.jit
def head_terms(bias, slopes, b, h, heads, bias_b, bias_h, c_bias, factor, HAS_BIAS: tl.constexpr, ALIBI: tl.constexpr):
    """Return what head h of sequence b adds to factor·(z + b): factor·b, and −factor·slope for each key of distance.

    ALIBI: dimensions of the slopes, [heads] or [B, heads]; 0 for none.
    """
    shift = c_bias
    if HAS_BIAS:
        shift = tl.load(bias + b * bias_b + h * bias_h) * factor
    slope = 0.0
    if ALIBI == 2:
        slope = -factor * tl.load(slopes + b * heads + h)
    elif ALIBI:
        slope = -factor * tl.load(slopes + h)
    return shift, slope


@triton.jit
def shifted(s, rows, columns, c_scale, shift, slope, ALIBI: tl.constexpr):
    """Return factor·(z + b) of the products s; rows are key positions i', broadcast against columns j."""
    x = s * c_scale + shift
    if ALIBI:
        x += tl.abs(rows - columns).to(tl.float32) * slope
    return x


@triton.jit
def weight(x, FORM: tl.constexpr, GAIN: tl.constexpr):
    """Return GAIN·sigmoid(y) of x = factor·y in float32; FORM is TANH, EX2 or PLAIN of ``sigmoid_forms``."""
    if FORM == TANH:
        t = tl.inline_asm_elementwise(TANH_APPROX, "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
        return t * (0.5 * GAIN) + 0.5 * GAIN
    elif FORM == EX2:
        y = tl.exp2(x) * (1.0 / GAIN) + 1.0 / GAIN
        return tl.inline_asm_elementwise(RCP, "=f,f", [y], dtype=tl.float32, is_pure=True, pack=1)
    else:
        return GAIN / (1.0 + tl.exp2(tl.minimum(x, 126.0, propagate_nan=tl.PropagateNan.ALL)))
