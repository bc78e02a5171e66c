"""Launch of the hopper backend's backward kernels: static tables, nothing is tuned at run time."""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import device, sigmoid_forms
from ..cache import layout, memoize
from ..launching import descriptors
from ..launching.launcher import Launcher
from ..problem import Problem
from .launch import OPTIONS, fit, lead, padded, programs, readable, tile
from .sigmoid import LARGEST_BIAS, backward_form
from .sizes import SLAB, WARPS

GAINS = {torch.bfloat16: (1.0, 1.0), torch.float16: (2.0**15, 4.0)}
"""Factors of P and of dS when they are rounded, so that small ones are not subnormal in float16."""


class BackwardConfig(NamedTuple):
    """Compile-time configuration of a backward kernel.

    block: queries of a tile of the kernel for dK and dV, keys of one of the kernel for dQ.
    stages: buffers of a ring, a power of two.
    registers: of a consumer's thread, of which there are 256.
    """

    block: int
    stages: int
    registers: int


DKDV = {64: BackwardConfig(128, 2, 240), 128: BackwardConfig(64, 2, 240)}
"""Configurations of the kernel for dK and dV by padded head dim."""
DQ = {64: BackwardConfig(128, 4, 240), 128: BackwardConfig(128, 2, 240)}
"""Configurations of the kernel for dQ by padded head dim."""
ROWS = 2 * SLAB
"""Keys, or queries, of one work item."""


class _Prepared(NamedTuple):
    """Launchers and shapes shared by all calls of one signature.

    partial: the shape of the partial sums of the bias's gradient.
    summed: that of dQ's workspace, which the kernel for dK and dV adds to; None where gradients are deterministic.
    dq: the kernel for dQ, or the one that rounds its workspace.
    """

    partial: tuple[int, ...]
    summed: tuple[int, ...] | None
    dkdv: Launcher
    dq: Launcher


class _Variant(NamedTuple):
    """Arguments besides the problem that kernels depend on; dkdv and dq: configurations to measure, not the table's."""

    bias_gradient: bool
    form: int
    dkdv: BackwardConfig | None
    dq: BackwardConfig | None


def backward(
    problem: Problem,
    grad: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
    bias_gradient: bool,
    form: int | None = None,
    dkdv: BackwardConfig | None = None,
    dq: BackwardConfig | None = None,
) -> Tensor:
    """Write the gradients of query, key and value and return the bias's [H] float32, or an empty tensor.

    Deterministic gradients take a kernel for dQ instead of additions in no fixed order.
    form, dkdv, dq: a form and configurations to measure, not those that are decided and the table's.
    """
    form = backward_form(problem) if form is None else form
    variant = _Variant(bias_gradient, form, dkdv, dq)
    key = "hopper backward", problem.layout, layout(grad), layout(grads[0]), layout(grads[1]), layout(grads[2]), variant
    prepared = memoize(key, lambda: _prepare(problem, grads[0], variant) if fit((*problem[:3], grad)) else None)
    if prepared is None:
        copied = descriptors.readable(problem, readable)
        return backward(copied, readable(grad), grads, bias_gradient, form, dkdv, dq)
    query, bias = problem.query, problem.bias
    given = query, problem.key, problem.value, grad
    factors = _factors(problem, form, GAINS[query.dtype][1])
    partial = torch.empty(prepared.partial, dtype=torch.float32, device=query.device)
    per_head = partial if bias is None else bias
    if prepared.summed is None:
        # The kernel without dQ does not read its workspace, in whose place dK is passed.
        prepared.dkdv((*given, grads[1], *grads[1:], per_head, partial), *factors)
        prepared.dq((*given, grads[0], query if bias is None else bias), *factors)
    else:
        workspace = torch.zeros(prepared.summed, dtype=torch.float32, device=query.device)
        prepared.dkdv((*given, workspace, *grads[1:], per_head, partial), *factors)
        prepared.dq((workspace, grads[0]), factors[3])
    return partial.sum((0, 2, 3, 4)) if bias_gradient else partial


def _prepare(problem: Problem, grad_query: Tensor, variant: _Variant) -> _Prepared:
    batch, heads, n_q, dim = problem.query.shape
    tiles = -(-problem.key.size(2) // ROWS)
    partial = (batch, heads, tiles, 2, WARPS) if variant.bias_gradient else (0,)
    dkdv = _dkdv_launcher(problem, variant, tiles)
    if problem.deterministic:
        return _Prepared(partial, None, dkdv, _dq_launcher(problem, variant))
    from .workspace import rounding

    return _Prepared(partial, (1, batch * heads, n_q, dim), dkdv, rounding(grad_query))


def _dkdv_launcher(problem: Problem, variant: _Variant, tiles: int) -> Launcher:
    """Return the kernel for dK, dV, partial sums of the bias's gradient and, unless it is deterministic, dQ."""
    from .backward import bwd_dkdv_kernel

    query, key = problem.query, problem.key
    batch, heads, n_q, dim = query.shape
    key_heads, n_k = key.shape[1:3]
    d_pad = padded(dim)
    config = variant.dkdv or DKDV[d_pad]
    gain, gradient_gain = GAINS[query.dtype]
    grid = programs(batch * key_heads * tiles, device.processors(query.device))
    rows = (config.block, ROWS, ROWS, config.block)
    operands = [*(tile(x, d_pad) for x in rows), tile(64, 64), tile(SLAB, d_pad), tile(SLAB, d_pad), None, None]
    constants = {
        "BLOCK_Q": config.block, "STAGES": config.stages, "REGISTERS": config.registers, "CAUSAL": problem.is_causal,
        "HAS_BIAS": problem.bias is not None, "BIAS_GRADIENT": variant.bias_gradient,
        "FUSED": not problem.deterministic, "FORM": variant.form, "GAIN": gain, "GRADIENT_GAIN": gradient_gain,
        **OPTIONS,
    }  # fmt: skip
    numbers = (key_heads, heads // key_heads, n_q, n_k, batch * key_heads, tiles)
    return Launcher(bwd_dkdv_kernel, (grid,), operands, numbers, constants)


def _dq_launcher(problem: Problem, variant: _Variant) -> Launcher:
    """Return the kernel for dQ."""
    from .backward_dq import bwd_dq_kernel

    query, key = problem.query, problem.key
    batch, heads, n_q, dim = query.shape
    tiles, d_pad = -(-n_q // ROWS), padded(dim)
    config = variant.dq or DQ[d_pad]
    grid = programs(batch * heads * tiles, device.processors(query.device))
    operands = [*(tile(x, d_pad) for x in (SLAB, config.block, config.block, SLAB, SLAB)), None]
    constants = {
        "BLOCK_K": config.block, "STAGES": config.stages, "REGISTERS": config.registers, "CAUSAL": problem.is_causal,
        "HAS_BIAS": problem.bias is not None, "FORM": variant.form, "GAIN": GAINS[query.dtype][1], **OPTIONS,
    }  # fmt: skip
    numbers = (heads, heads // key.size(1), n_q, key.size(2), batch * heads, tiles, lead(problem))
    return Launcher(bwd_dq_kernel, (grid,), operands, numbers, constants)


def _factors(problem: Problem, form: int, gain: float) -> tuple[float, float, float, float, float]:
    """Return factor·scale, factor·bias, factor, what products with gain·dS are multiplied with, and TANH's bound."""
    factor, bound = sigmoid_forms.factor(form), LARGEST_BIAS[problem.query.dtype]
    return factor * problem.scale, factor * problem.bias_value, factor, problem.scale / gain, bound
