"""The sigmoid as PTX: two float32 logits to two weights in the inputs' type, times a gain that the accumulator undoes.

``$1, $2`` are two products s = q·k, ``$3`` is factor·scale and ``$5`` factor·b; x = s·$3 + $5 is factor·(scale·s + b).
"""

import struct

from triton.experimental.gluon import language as gl

from .. import sigmoid_forms

_GAINS = {"bf16x2": 4.0, "f16x2": 2.0**15}
"""Powers of two. float16: keeps weights below 6e-5 from being subnormal. bfloat16: keeps ``MAGIC`` from a NaN."""

MAGIC = "0x7EF311C3"
"""``MAGIC - bits(y)`` are the bits of a first guess at 1/y, 12 % off at most."""


def _hex(number: float) -> str:
    return "0f" + struct.pack(">f", number).hex().upper()


def tanh(pair: str) -> str:
    """PTX of gain/2 + gain/2·tanh(x), factor 1/2: one special-function op a weight, loses weights below 2^-11."""
    half = _hex(_GAINS[pair] / 2)
    return f"""{{ .reg .f32 x0, x1;
fma.rn.ftz.f32 x0, $1, $3, $5; fma.rn.ftz.f32 x1, $2, $4, $6;
tanh.approx.f32 x0, x0; tanh.approx.f32 x1, x1;
fma.rn.ftz.f32 x0, x0, {half}, {half}; fma.rn.ftz.f32 x1, x1, {half}, {half};
cvt.rn.{pair}.f32 $0, x1, x0; }}"""


def mixed(pair: str) -> str:
    """PTX of gain/(1 + 2^x), factor −log2(e): one weight's reciprocal by rcp, its neighbour's on the FMA pipe.

    r is the guess at 1/y and t = 1 − y·r its error; r·(1 + t + t²) is within 1.3e-4. An infinite y ends at −inf, which
    ``relu`` makes the 0 it should be; NaN stays NaN.
    """
    part = _hex(1 / _GAINS[pair])
    return f"""{{ .reg .f32 x0, x1, y0, y1, r, t, u; .reg .b32 i;
fma.rn.ftz.f32 x0, $1, $3, $5; fma.rn.ftz.f32 x1, $2, $4, $6;
ex2.approx.ftz.f32 x0, x0; ex2.approx.ftz.f32 x1, x1;
fma.rn.ftz.f32 y0, x0, {part}, {part}; fma.rn.ftz.f32 y1, x1, {part}, {part};
rcp.approx.ftz.f32 y0, y0;
mov.b32 i, y1; sub.s32 i, {MAGIC}, i; mov.b32 r, i;
neg.ftz.f32 y1, y1;
fma.rn.ftz.f32 t, y1, r, {_hex(1.0)};
fma.rn.ftz.f32 u, t, t, t;
fma.rn.ftz.f32 r, r, u, r;
cvt.rn.relu.{pair}.f32 $0, r, y0; }}"""


EX2, TANH = gl.constexpr(sigmoid_forms.EX2), gl.constexpr(sigmoid_forms.TANH)
MIXED, BY_HEAD = gl.constexpr(sigmoid_forms.MIXED), gl.constexpr(sigmoid_forms.BY_HEAD)
TANH_FACTOR = gl.constexpr(sigmoid_forms.factor(sigmoid_forms.TANH) / sigmoid_forms.factor(sigmoid_forms.MIXED))
"""The factor of TANH over that of MIXED and EX2."""
OUTPUTS = gl.constexpr("=r,f,f,f,f,f,f")
TANH_BF16, TANH_FP16 = gl.constexpr(tanh("bf16x2")), gl.constexpr(tanh("f16x2"))
MIXED_BF16, MIXED_FP16 = gl.constexpr(mixed("bf16x2")), gl.constexpr(mixed("f16x2"))
GAIN_BF16, GAIN_FP16 = gl.constexpr(_GAINS["bf16x2"]), gl.constexpr(_GAINS["f16x2"])
UNPACKED = gl.constexpr("=f,=f,r")
UNPACK_BF16 = gl.constexpr("shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;")
UNPACK_FP16 = gl.constexpr("{ .reg .b16 l, h; mov.b32 {l, h}, $2; cvt.f32.f16 $0, l; cvt.f32.f16 $1, h; }")
"""PTX of ``$0, $1``: the two numbers that ``$2`` packs, in float32."""
