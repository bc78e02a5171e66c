"""How the backward kernels of the hopper backend are launched: static tables, nothing is tuned at run time."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .. import descriptors
from ..cache import layout, memoize
from ..launcher import Launcher
from ..problem import Problem
from . import launch
from .launch import CAPABILITY, OPTIONS, SLAB, lead, padded, programs, readable, tile

TANH, EXACT, BY_HEAD = 1, 2, 3
"""How sigmoid is computed; the same numbers as in weights.py."""
TANH_BIAS = {torch.bfloat16: 9.71, torch.float16: 7.0}
"""The largest bias either way at which the tanh form is used: beyond it P, or 1 − P, is lost; as in the forward."""
GAINS = {torch.bfloat16: (1.0, 1.0), torch.float16: (2.0**15, 4.0)}
"""Factors of P and of dS when they are rounded, so that small ones are not subnormal in float16."""


class Launch(NamedTuple):
    """What a backward kernel is compiled for.

    block: queries of a tile of the key kernel, keys of one of the query kernel.
    stages: tiles in flight, a power of two.
    registers: of a consumer's thread, of which there are 256.
    """

    block: int
    stages: int
    registers: int


KEYS = {64: Launch(128, 2, 240), 128: Launch(64, 2, 240)}
"""Launches of the key kernel by padded head dim."""
QUERIES = {64: Launch(128, 4, 240), 128: Launch(128, 2, 240)}
"""Launches of the query kernel by padded head dim."""
TURN = 2 * SLAB
"""Keys, or queries, of one program's turn."""


def sigmoid_form(problem: Problem) -> int:
    """Return how sigmoid is computed, from type and bias alone: TANH only for a bias that is small enough.

    A bias in a tensor is read by the kernel, which then decides for each head: BY_HEAD.
    """
    if problem.form != "auto":
        return TANH if problem.form == "tanh" else EXACT
    if problem.bias is not None:
        return BY_HEAD
    return TANH if abs(problem.bias_value) <= TANH_BIAS[problem.query.dtype] else EXACT


class _Ready(NamedTuple):
    """What is the same for all calls that look alike.

    partial: the shape of the parts of the bias's gradient.
    summed: that of dQ's workspace, which the key kernel adds to; None where results repeat.
    queries: the kernel for dQ, or the one that rounds its workspace.
    """

    partial: tuple[int, ...]
    summed: tuple[int, ...] | None
    keys: Launcher
    queries: Launcher


def backward(
    problem: Problem,
    grad: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
    bias_gradient: bool,
    form: int | None = None,
    keys: Launch | None = None,
    queries: Launch | None = None,
) -> Tensor:
    """Write the gradients of query, key and value and return the bias's [H] float32, or an empty tensor.

    Deterministic gradients take a kernel for dQ instead of additions in no fixed order.
    form, keys, queries: a form and launches to measure, not the table's.
    """
    form = sigmoid_form(problem) if form is None else form
    plans = _Plans(bias_gradient, form, keys, queries)
    key = "hopper backward", problem.layout, layout(grad), layout(grads[0]), layout(grads[1]), layout(grads[2]), plans
    ready = memoize(
        key, lambda: _ready(problem, grads[0], plans) if descriptors.fit(CAPABILITY, (*problem[:3], grad)) else None
    )
    if ready is None:
        copied = descriptors.readable(problem, readable)
        return backward(copied, readable(grad), grads, bias_gradient, form, keys, queries)
    query, bias = problem.query, problem.bias
    given = query, problem.key, problem.value, grad
    factors = _factors(problem, form, GAINS[query.dtype][1])
    partial = torch.empty(ready.partial, dtype=torch.float32, device=query.device)
    per_head = partial if bias is None else bias
    if ready.summed is None:
        # The kernel without dQ does not look at what stands for its workspace.
        ready.keys((*given, grads[1], *grads[1:], per_head, partial), *factors)
        ready.queries((*given, grads[0], query if bias is None else bias), *factors)
    else:
        workspace = torch.zeros(ready.summed, dtype=torch.float32, device=query.device)
        ready.keys((*given, workspace, *grads[1:], per_head, partial), *factors)
        ready.queries((workspace, grads[0]), factors[3])
    return partial.sum((0, 2, 3, 4)) if bias_gradient else partial


class _Plans(NamedTuple):
    """What of a call its tensors do not tell."""

    bias_gradient: bool
    form: int
    keys: Launch | None
    queries: Launch | None


def _ready(problem: Problem, grad_query: Tensor, plans: _Plans) -> _Ready:
    batch, heads, n_q, dim = problem.query.shape
    tiles = -(-problem.key.size(2) // TURN)
    partial = (batch, heads, tiles, 2, 4) if plans.bias_gradient else (0,)
    keys = _key_launcher(problem, plans, tiles)
    if problem.deterministic:
        return _Ready(partial, None, keys, _query_launcher(problem, plans))
    from .workspace import rounding

    return _Ready(partial, (1, batch * heads, n_q, dim), keys, rounding(grad_query))


def _key_launcher(problem: Problem, plans: _Plans, tiles: int) -> Launcher:
    """Return the kernel for dK and dV, for parts of the bias's gradient, and unless it is deterministic for dQ."""
    from .backward import bwd_dkdv_kernel

    query, key = problem.query, problem.key
    batch, heads, n_q, dim = query.shape
    key_heads, n_k = key.shape[1:3]
    d_pad = padded(dim)
    plan = plans.keys or KEYS[d_pad]
    gain, gradient_gain = GAINS[query.dtype]
    grid = programs(batch * key_heads, tiles, launch.processors(query.device))
    rows = (plan.block, TURN, TURN, plan.block)
    operands = [*(tile(x, d_pad) for x in rows), tile(64, 64), tile(SLAB, d_pad), tile(SLAB, d_pad), None, None]
    constants = {
        "BLOCK_Q": plan.block, "STAGES": plan.stages, "REGISTERS": plan.registers, "CAUSAL": problem.is_causal,
        "HAS_BIAS": problem.bias is not None, "BIAS_GRADIENT": plans.bias_gradient, "FUSED": not problem.deterministic,
        "FORM": plans.form, "GAIN": gain, "GRADIENT_GAIN": gradient_gain, **OPTIONS,
    }  # fmt: skip
    numbers = (key_heads, heads // key_heads, n_q, n_k, batch * key_heads, tiles)
    return Launcher(bwd_dkdv_kernel, (grid,), operands, numbers, constants)


def _query_launcher(problem: Problem, plans: _Plans) -> Launcher:
    """Return the kernel for dQ."""
    from .backward_dq import bwd_dq_kernel

    query, key = problem.query, problem.key
    batch, heads, n_q, dim = query.shape
    tiles, d_pad = -(-n_q // TURN), padded(dim)
    plan = plans.queries or QUERIES[d_pad]
    grid = programs(batch * heads, tiles, launch.processors(query.device))
    operands = [*(tile(x, d_pad) for x in (SLAB, plan.block, plan.block, SLAB, SLAB)), None]
    constants = {
        "BLOCK_K": plan.block, "STAGES": plan.stages, "REGISTERS": plan.registers, "CAUSAL": problem.is_causal,
        "HAS_BIAS": problem.bias is not None, "FORM": plans.form, "GAIN": GAINS[query.dtype][1], **OPTIONS,
    }  # fmt: skip
    numbers = (heads, heads // key.size(1), n_q, key.size(2), batch * heads, tiles, lead(problem))
    return Launcher(bwd_dq_kernel, (grid,), operands, numbers, constants)


def _factors(problem: Problem, form: int, gain: float) -> tuple[float, float, float, float, float]:
    """Return factor·scale, factor·bias, factor, what products with gain·dS are multiplied with, and TANH's bound."""
    factor = 0.5 if form == TANH else -math.log2(math.e)
    bound = TANH_BIAS[problem.query.dtype]
    return factor * problem.scale, factor * problem.bias_value, factor, problem.scale / gain, bound
