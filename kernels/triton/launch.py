"""Launch configurations of the triton backend's kernels, and the numbers that describe a problem to them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import device, sigmoid_forms
from ..launching import descriptors
from ..problem import Problem
from ..sigmoid_forms import EX2, PLAIN, TANH
from . import tables
from .tables import STATISTICS, Kernel, Tiles

CAUSAL, WINDOW, LENGTHS, PACKED, MASK, PAIRS, ADDED, CACHED = (1 << bit for bit in range(8))
"""Rules of visibility, whose sum a kernel is compiled for.

MASK: there is a mask tensor. PAIRS: it differs between the rows of a tile. ADDED: it is floating, not boolean.
CACHED: queries end at the length of their sequence.
"""
TANH_BIAS = {torch.bfloat16: -9.2, torch.float16: -7.0}
"""The lowest bias at which the tanh form is used; README.md holds the measurement."""
WEIGHT_GAIN = {torch.float16: 2.0**15}
"""Weights are stored times this, so that those below 6e-5 are not subnormal in float16; the accumulator undoes it."""
GRADIENT_GAIN = {torch.float16: 4.0}
"""The same for dS, as far as P (1 - P) <= 1/4 lets it: it overflows only where dP itself would."""
CACHE = 24 * 2**20
"""Bytes of keys and values that concurrent programs may share: half of an H100's second-level cache."""


class LaunchConfig(NamedTuple):
    """One kernel's launch: everything that depends on the device, head dim and type, and not on the lengths."""

    block_q: int
    block_k: int
    d_pad: int
    form: int
    gain: float
    gradient_gain: float
    tma: bool
    options: dict[str, Any]

    def factors(self, problem: Problem) -> tuple[float, float, float]:
        """Return factor·scale, factor·bias and factor: the logit as the sigmoid's form takes it."""
        factor = sigmoid_forms.factor(self.form)
        return factor * problem.scale, factor * problem.bias_value, factor

    def constants(self, problem: Problem) -> dict[str, Any]:
        """Return what every attention kernel is compiled for, by the names of its parameters."""
        return {
            "D": problem.query.size(3),
            "D_PAD": self.d_pad,
            "BLOCK_Q": self.block_q,
            "BLOCK_K": self.block_k,
            "RULES": rules(problem),
            "HAS_BIAS": problem.bias is not None,
            "ALIBI": 0 if problem.alibi_slopes is None else problem.alibi_slopes.dim(),
            "FORM": self.form,
            "GAIN": self.gain,
            "TMA": self.tma,
            **self.options,
        }


def sigmoid_form(problem: Problem, kernel: Kernel) -> int:
    """Return the form of the sigmoid, decided from type and bias alone.

    TANH is one special-function operation and loses small weights, so only the forward uses it, and only where the
    bias is a number that keeps typical weights large enough. In the interpreter, and in float32, the form is PLAIN.
    """
    dtype = problem.query.dtype
    if dtype == torch.float32 or not device.on_device(problem.query.device):
        return PLAIN
    if kernel != "forward" or problem.form == "accurate":
        return EX2
    added = problem.attn_mask is not None and problem.attn_mask.is_floating_point()
    known = problem.bias is None and problem.alibi_slopes is None and not added
    return TANH if problem.form == "tanh" or (known and problem.bias_value >= TANH_BIAS[dtype]) else EX2


def rules(problem: Problem, heads: int = 1) -> int:
    """Return the rules of visibility that a kernel is compiled for whose tiles hold rows of ``heads`` heads."""
    return (
        CAUSAL * problem.is_causal
        + WINDOW * (problem.window is not None)
        + LENGTHS * (problem.key_lengths is not None)
        + PACKED * (problem.query_starts is not None)
        + CACHED * problem.cached
        + _mask_rules(problem.attn_mask, heads)
    )


def _mask_rules(mask: Tensor | None, heads: int) -> int:
    if mask is None:
        return 0
    differs = mask.size(2) > 1 or (mask.size(1) > 1 and heads > 1)
    return MASK + PAIRS * differs + ADDED * mask.is_floating_point()


def heads_together(shared: Tensor, is_causal: bool) -> int:
    """Return how many (batch, head) pairs are interleaved: long rows come first and the cache still holds their keys.

    shared: [B, H, N, D], what the programs of a pair read together.
    """
    if not is_causal:
        return 1
    return max(1, CACHE // (2 * shared.size(2) * shared.size(3) * shared.element_size()))


def split_keys(config: LaunchConfig) -> int:
    """Return the keys that one program of the statistics kernel reads: few, so that one sequence fills a device."""
    return config.block_k if config.block_q == 16 else max(config.block_k, 256)


def _config(kernel: Kernel, problem: Problem, *others: Tensor) -> LaunchConfig:
    query, key, value = problem.query, problem.key, problem.value
    found = device.capability(query.device)
    dtype, d_pad = query.dtype, tables.padded(query.size(3))
    packed = problem.query_starts is not None  # a TMA store would write on into the next sequence
    tma = kernel not in STATISTICS and not packed and descriptors.fit(found, (query, key, value, *others))
    mask = problem.attn_mask
    stores = kernel == "dq" and mask is not None and mask.is_floating_point() and mask.size(2) > 1
    return _launch(problem, kernel, tables.tiles(kernel, found, dtype, d_pad, tma and not stores), tma)


def _launch(problem: Problem, kernel: Kernel, tiles: Tiles, tma: bool) -> LaunchConfig:
    dtype, d_pad = problem.query.dtype, tables.padded(problem.query.size(3))
    block_q, block_k, warps, stages = tiles
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    form, gain = sigmoid_form(problem, kernel), WEIGHT_GAIN.get(dtype, 1.0)
    return LaunchConfig(block_q, block_k, d_pad, form, gain, GRADIENT_GAIN.get(dtype, 1.0), tma, options)


def forward_config(problem: Problem, output: Tensor) -> LaunchConfig:
    """Return the launch of the forward kernel."""
    return _config("forward", problem, output)


def split_config(problem: Problem) -> LaunchConfig:
    """Return the launch of the split-key forward kernel."""
    found, d_pad = device.capability(problem.query.device), tables.padded(problem.query.size(3))
    rows = problem.query.size(1) // problem.key.size(1) * problem.n_q
    tiles = tables.split_tiles(found, problem.query.dtype, d_pad, rows, problem.attn_mask is not None)
    return _launch(problem, "forward", tiles, False)


def dq_config(problem: Problem, grad: Tensor, grad_query: Tensor) -> LaunchConfig:
    """Return the launch of the kernel for dQ and the bias's gradient."""
    return _config("dq", problem, grad, grad_query)


def dkdv_config(problem: Problem, grad: Tensor, grad_key: Tensor, grad_value: Tensor) -> LaunchConfig:
    """Return the launch of the kernel for dK and dV."""
    return _config("dkdv", problem, grad, grad_key, grad_value)


def statistics_config(problem: Problem, rows: int) -> LaunchConfig:
    """Return the launch of the statistics kernel for ``rows`` rows of a sequence."""
    return _config("few rows" if rows <= 16 else "statistics", problem)
