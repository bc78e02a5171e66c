# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""Weights in float32, recomputed from products, the causal mask, and the gradient of the logits.

``$2, $3`` are two products s = q·k, ``$4`` is factor·scale, ``$6`` factor·b, as in weights.py; ``$0, $1`` are weights.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from .compat import aggregate
from .weights import TANH

_START = """{ .reg .f32 x0, x1;
fma.rn.ftz.f32 x0, $2, $4, $6; fma.rn.ftz.f32 x1, $3, $5, $7;"""
_ONE, _HALF = "0f3F800000", "0f3F000000"

_EXACT = f"""{_START}
ex2.approx.ftz.f32 x0, x0; ex2.approx.ftz.f32 x1, x1;
add.rn.ftz.f32 x0, x0, {_ONE}; add.rn.ftz.f32 x1, x1, {_ONE};
rcp.approx.ftz.f32 $0, x0; rcp.approx.ftz.f32 $1, x1; }}"""
"""1/(1 + 2^x), factor −log2(e): within 4e-7, also what 1 − P loses. A reciprocal on the FMA pipe is no faster here."""
_TANH = f"""{_START}
tanh.approx.f32 x0, x0; tanh.approx.f32 x1, x1;
fma.rn.ftz.f32 $0, x0, {_HALF}, {_HALF}; fma.rn.ftz.f32 $1, x1, {_HALF}, {_HALF}; }}"""
"""1/2 + 1/2·tanh(x), factor 1/2: loses weights, and distances from one, below 2^-11."""

OUTPUTS = gl.constexpr("=&f,=&f,f,f,f,f,f,f")
EXACT_PTX, TANH_PTX = gl.constexpr(_EXACT), gl.constexpr(_TANH)


@aggregate
class Factors:
    """factor·scale, factor·bias, factor, what products with dS are multiplied with, and the largest bias of TANH."""

    c_scale: gl.tensor
    c_bias: gl.tensor
    factor: gl.tensor
    scale: gl.tensor
    largest: gl.tensor


@gluon.jit
def weights(s, c_scale, shift, FORM: gl.constexpr):
    """Return the weights of products s, float32."""
    asm: gl.constexpr = TANH_PTX if FORM == TANH else EXACT_PTX
    return gl.inline_asm_elementwise(asm, OUTPUTS, [s, c_scale, shift], dtype=gl.float32, is_pure=True, pack=2)


@gluon.jit
def causal_mask(p, reach, KEYS_FIRST: gl.constexpr):
    """Return weights p, and 0 where a query does not see its key.

    KEYS_FIRST: p is [keys, queries]; query i of the tile sees its keys up to reach + i.
    What a thread's columns are beyond multiples of 8 it holds in a register or two; the multiples are immediates.
    """
    layout: gl.constexpr = p.type.layout
    rows = gl.arange(0, p.shape[0], gl.SliceLayout(1, layout))[:, None]
    columns = gl.arange(0, p.shape[1], gl.SliceLayout(0, layout))[None, :]
    if KEYS_FIRST:
        return gl.where(rows - reach - (columns & 7) <= (columns & -8), p, 0.0)
    else:
        return gl.where((columns & -8) <= rows + reach - (columns & 7), p, 0.0)


@gluon.jit
def rounded(p, GAIN: gl.constexpr, dtype: gl.constexpr):
    """Return weights p times GAIN in the inputs' type."""
    if GAIN != 1.0:
        p = p * GAIN
    return p.to(dtype)


@gluon.jit
def logit_gradient(p, dp, GAIN: gl.constexpr):
    """Return GAIN·P (1 − P) dP, float32."""
    if GAIN != 1.0:
        dp = dp * GAIN
    t = p * dp
    return t - p * t
