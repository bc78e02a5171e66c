"""The forms in which fused kernels compute sigmoid: one numbering for hosts, kernels and tests.

x is factor·(z + b) of logits z, 2^x and tanh(x) are the GPU's approximate special functions.
"""

import math

PLAIN, EX2, TANH, MIXED, BY_HEAD = range(5)
"""Computations of the weight sigmoid(z + b).

PLAIN: 1/(1 + 2^x) by a full division and without overflow, for float32 and for Triton's interpreter.
EX2: 1/(1 + 2^x) by an approximate reciprocal, relative error below 4e-7.
TANH: 1/2 + 1/2·tanh(x), one special function, loses weights below 2^-11.
MIXED: EX2, every other reciprocal by a polynomial on the FMA pipe, exact to the rounding of weights to 16 bits.
BY_HEAD: TANH for heads whose bias, a tensor, allows it, and the backend's accurate form for the others.
"""

NAMES = {TANH: "tanh", BY_HEAD: "by head"}
"""Names in ``AuxOutput.form``; the others are "accurate"."""


def factor(form: int) -> float:
    """Return the factor of the logits: 1/2 for TANH, −log2(e) for the others, BY_HEAD's kernel scales it itself."""
    return 0.5 if form == TANH else -math.log2(math.e)


def name(form: int) -> str:
    """Return the name of a form in ``AuxOutput.form``: "tanh", "accurate" or "by head"."""
    return NAMES.get(form, "accurate")
