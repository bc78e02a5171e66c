"""How the backward kernels of the hopper backend are launched: static tables, nothing is tuned at run time."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..problem import Problem
from . import launch
from .launch import OPTIONS, SLAB, lead, padded, programs, readable

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
    query, key, value, grad = (readable(x) for x in (*problem[:3], grad))
    problem = problem._replace(query=query, key=key, value=value)
    dim = padded(query.size(3))
    keys, queries = keys or KEYS[dim], queries or QUERIES[dim]
    with torch.cuda.device(grad.device):
        if problem.deterministic:
            found = _key_gradients(problem, grad, grads, None, bias_gradient, keys, form)
            _query_gradient(problem, grad, grads[0], queries, form)
            return found
        from .workspace import rounded

        workspace = torch.zeros(query.shape, dtype=torch.float32, device=grad.device)
        found = _key_gradients(problem, grad, grads, workspace, bias_gradient, keys, form)
        rounded(workspace, grads[0], problem.scale / GAINS[grad.dtype][1])
    return found


def _key_gradients(
    problem: Problem,
    grad: Tensor,
    grads: tuple[Tensor, Tensor, Tensor],
    workspace: Tensor | None,
    bias_gradient: bool,
    plan: Launch,
    form: int | None,
) -> Tensor:
    """Write the gradients of key and value, add dS K to ``workspace`` if there is one, return the bias's gradient."""
    from .backward import key_kernel

    query, key, value = problem.query, problem.key, problem.value
    batch, heads, n_q, dim = query.shape
    key_heads, n_k = key.shape[1:3]
    tiles = -(-n_k // TURN)
    partial = torch.empty((batch, heads, tiles, 2) if bias_gradient else 0, dtype=torch.float32, device=query.device)
    form = sigmoid_form(problem) if form is None else form
    gain, gradient_gain = GAINS[query.dtype]
    # The kernel without dQ does not look at what stands for its workspace.
    summed = grads[1] if workspace is None else workspace.view(1, batch * heads, n_q, dim)
    rows = ((query, plan.block), (key, TURN), (value, TURN), (grad, plan.block))
    d_pad = padded(dim)
    key_kernel[(programs(batch * key_heads, tiles, problem.is_causal, launch.processors(query.device)),)](
        *(launch.descriptor(x, block, d_pad) for x, block in rows), launch.descriptor(summed, 64, 64),
        *(launch.descriptor(x, SLAB, d_pad) for x in grads[1:]),
        partial if problem.bias is None else problem.bias, partial,
        key_heads, heads // key_heads, n_q, n_k, batch * key_heads, tiles, *_factors(problem, form, gradient_gain),
        BLOCK_Q=plan.block, STAGES=plan.stages, REGISTERS=plan.registers, CAUSAL=problem.is_causal,
        HAS_BIAS=problem.bias is not None, BIAS_GRADIENT=bias_gradient, FUSED=workspace is not None, FORM=form,
        GAIN=gain, GRADIENT_GAIN=gradient_gain, **OPTIONS,
    )  # fmt: skip
    return partial.sum((0, 2, 3)) if bias_gradient else partial


def _query_gradient(problem: Problem, grad: Tensor, grad_query: Tensor, plan: Launch, form: int | None) -> None:
    """Write the gradient of query."""
    from .query import query_kernel

    query, key, value = problem.query, problem.key, problem.value
    batch, heads, n_q, dim = query.shape
    tiles = -(-n_q // TURN)
    form = sigmoid_form(problem) if form is None else form
    gain = GAINS[query.dtype][1]
    rows = ((query, SLAB), (key, plan.block), (value, plan.block), (grad, SLAB), (grad_query, SLAB))
    query_kernel[(programs(batch * heads, tiles, problem.is_causal, launch.processors(query.device)),)](
        *(launch.descriptor(x, block, padded(dim)) for x, block in rows),
        query if problem.bias is None else problem.bias,
        heads, heads // key.size(1), n_q, key.size(2), batch * heads, tiles, lead(problem),
        *_factors(problem, form, gain),
        BLOCK_K=plan.block, STAGES=plan.stages, REGISTERS=plan.registers, CAUSAL=problem.is_causal,
        HAS_BIAS=problem.bias is not None, FORM=form, GAIN=gain, **OPTIONS,
    )  # fmt: skip


def _factors(problem: Problem, form: int, gain: float) -> tuple[float, float, float, float, float]:
    """Return factor·scale, factor·bias, factor, what products with gain·dS are multiplied with, and TANH's bound."""
    factor = 0.5 if form == TANH else -math.log2(math.e)
    bound = TANH_BIAS[problem.query.dtype]
    return factor * problem.scale, factor * problem.bias_value, factor, problem.scale / gain, bound
