"""Choice of the form of the sigmoid in the hopper kernels, from type and bias alone.

A bias in a tensor is read by the kernel, which then decides for each head: BY_HEAD.
"""

import torch

from ..problem import Problem
from ..sigmoid_forms import BY_HEAD, EX2, MIXED, TANH

LOWEST_BIAS = {torch.bfloat16: -9.71, torch.float16: -7.0}
"""The forward uses TANH from this bias on: there its error is 1.4 times the rounding floor (n = 16384, 1096)."""
LARGEST_BIAS = {torch.bfloat16: 9.71, torch.float16: 7.0}
"""The backward uses TANH up to this bias either way: beyond it P, or 1 − P, is lost."""


def forward_form(problem: Problem) -> int:
    """Return TANH for a bias that is large enough, else MIXED."""
    if problem.form != "auto":
        return TANH if problem.form == "tanh" else MIXED
    if problem.bias is not None:
        return BY_HEAD
    return TANH if problem.bias_value >= LOWEST_BIAS[problem.query.dtype] else MIXED


def backward_form(problem: Problem) -> int:
    """Return TANH for a bias that is small enough either way, else EX2."""
    if problem.form != "auto":
        return TANH if problem.form == "tanh" else EX2
    if problem.bias is not None:
        return BY_HEAD
    return TANH if abs(problem.bias_value) <= LARGEST_BIAS[problem.query.dtype] else EX2
