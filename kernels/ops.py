"""The fused backends as PyTorch operators: traced whole by torch.compile, with autograd; only their inputs are kept.

stabmon::sigmoid_attention, stabmon::sigmoid_attention_backward and stabmon::row_statistics take the fields of a
``Problem``, spelled in ``problem.SCHEMA``. Kernels, and with them triton, are imported when an operator first runs.
"""

from typing import Any

import torch
from torch import Tensor

from . import flops
from .descriptors import aligned
from .problem import FIELDS, SCHEMA, Problem


def attend(problem: Problem, with_sums: bool, backend: str, gradients: str) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, N_q, D] and Σ out² [B, H] (empty without sums), by "triton" or "hopper".

    gradients: which of the two works out the gradients.
    """
    output, sums = sigmoid_attention_op(*problem, with_sums, backend, gradients)
    return output, sums


def row_statistics(problem: Problem, sums: Tensor, rows: int, offset: float, sequences: int) -> Tensor:
    """Return ``STATISTICS`` [B, H, 9] float32, the first of which are ``sums``, as ``reference`` specifies them."""
    measured: Tensor = row_statistics_op(*problem, sums, rows, offset, sequences)
    return measured


@torch.library.custom_op(
    "stabmon::sigmoid_attention",
    mutates_args=(),
    schema=f"({SCHEMA}, bool with_sums, str backend, str gradients) -> (Tensor, Tensor)",
)
def sigmoid_attention_op(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return output and sums of ``Problem``'s fields, ``with_sums``, ``backend`` and ``gradients``."""
    from . import forward
    from .hopper import launch as hopper

    problem, (with_sums, backend, _) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    output = torch.empty_like(problem.query)
    run = hopper.forward if backend == "hopper" else forward.forward
    return output, run(_readable(problem), output, with_sums)


@sigmoid_attention_op.register_fake
def _fake_attention(*arguments: Any) -> tuple[Tensor, Tensor]:
    problem, (with_sums, *_) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    query = problem.query
    sums = query.new_empty((problem.batch, query.size(1)) if with_sums else (0,), dtype=torch.float32)
    return torch.empty_like(query), sums


@torch.library.custom_op(
    "stabmon::sigmoid_attention_backward",
    mutates_args=(),
    schema=f"(Tensor grad, {SCHEMA}, bool bias_gradient, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
)
def backward_op(grad: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of query, key, value and bias; the last is empty unless it is asked for."""
    from . import backward
    from .hopper import launch as hopper

    problem, (bias_gradient, backend) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    grads = torch.empty_like(problem.query), torch.empty_like(problem.key), torch.empty_like(problem.value)
    grad = aligned(grad if grad.stride(-1) == 1 else grad.contiguous())
    run = hopper.backward if backend == "hopper" else backward.backward
    return *grads, run(_readable(problem), grad, grads, bias_gradient)


@backward_op.register_fake
def _fake_backward(_: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    problem, (bias_gradient, _) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    query, key, value = problem[:3]
    grad_bias = query.new_empty((query.size(1),) if bias_gradient else (0,), dtype=torch.float32)
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), grad_bias


@torch.library.custom_op(
    "stabmon::row_statistics",
    mutates_args=(),
    schema=f"({SCHEMA}, Tensor sums, SymInt rows, float offset, SymInt sequences) -> Tensor",
)
def row_statistics_op(*arguments: Any) -> Tensor:
    """Return the statistics [B, H, 9] float32."""
    from .statistics import row_statistics

    return row_statistics(_readable(Problem(*arguments[:FIELDS])), *arguments[FIELDS:])


@row_statistics_op.register_fake
def _fake_statistics(*arguments: Any) -> Tensor:
    problem = Problem(*arguments[:FIELDS])
    return problem.query.new_empty((problem.batch, problem.query.size(1), 9), dtype=torch.float32)


def _readable(problem: Problem) -> Problem:
    query, key, value = (aligned(tensor) for tensor in problem[:3])
    return problem._replace(query=query, key=key, value=value)


_TENSORS = tuple(i for i, kind in enumerate(Problem.__annotations__.values()) if kind in (Tensor, Tensor | None))
"""Where ``Problem`` has tensors."""


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*(inputs[i] for i in _TENSORS))
    ctx.rest = [None if i in _TENSORS else given for i, given in enumerate(inputs[:FIELDS])]
    ctx.backend = inputs[-1]
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    given = dict(zip(_TENSORS, ctx.saved_tensors, strict=True))
    problem = Problem(*(given.get(i, value) for i, value in enumerate(ctx.rest)))
    wanted = problem.bias is not None and ctx.needs_input_grad[3]
    *grads, grad_bias = backward_op(grad, *problem, wanted, ctx.backend)
    nothing = [None] * (FIELDS + 3 - 4)
    return (*grads, grad_bias if wanted else None, *nothing)


sigmoid_attention_op.register_autograd(_differentiate, setup_context=_keep)
flops.offer()
