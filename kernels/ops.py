"""The fused backends as PyTorch operators: traced whole by torch.compile, with autograd; only their inputs are kept.

stabmon::sigmoid_attention, stabmon::sigmoid_attention_backward and stabmon::row_statistics. Kernels, and with them
triton, are imported when an operator first runs.
"""

from typing import Any

import torch
from torch import Tensor

from .descriptors import aligned
from .problem import Problem


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | float,
    scale: float,
    is_causal: bool,
    alibi_slopes: Tensor | None,
    with_sums: bool,
    backend: str = "triton",
) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, N_q, D] and Σ out² [B, H] (empty without sums), by "triton" or "hopper"."""
    per_head, number = _split(bias)
    slopes = None if alibi_slopes is None else alibi_slopes.detach().float()
    arguments = (query, key, value, per_head, number, slopes, scale, is_causal, with_sums, backend)
    output, sums = sigmoid_attention_op(*arguments)
    return output, sums


def row_statistics(
    query: Tensor,
    key: Tensor,
    bias: Tensor | float,
    scale: float,
    is_causal: bool,
    alibi_slopes: Tensor | None,
    rows: int,
    offset: float,
) -> Tensor:
    """Return all of ``STATISTICS`` but the output's, [B, H, 8] float32, as ``reference.row_statistics`` does."""
    per_head, number = _split(bias)
    slopes = None if alibi_slopes is None else alibi_slopes.detach().float()
    measured: Tensor = row_statistics_op(query, key, per_head, number, slopes, scale, is_causal, rows, offset)
    return measured


def _split(bias: Tensor | float) -> tuple[Tensor | None, float]:
    return (bias, 0.0) if isinstance(bias, Tensor) else (None, bias)


@torch.library.custom_op("stabmon::sigmoid_attention", mutates_args=())
def sigmoid_attention_op(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    bias_value: float,
    alibi_slopes: Tensor | None,
    scale: float,
    is_causal: bool,
    with_sums: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Return output and sums; ``bias`` is [H] float32, or None and ``bias_value`` holds for all heads."""
    from . import forward
    from .hopper import launch as hopper

    output = torch.empty_like(query)
    query, key, value = aligned(query), aligned(key), aligned(value)
    problem = Problem(query, key, value, bias, bias_value, alibi_slopes, scale, is_causal)
    run = hopper.forward if backend == "hopper" else forward.forward
    return output, run(problem, output, with_sums)


@sigmoid_attention_op.register_fake
def _fake_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    bias_value: float,
    alibi_slopes: Tensor | None,
    scale: float,
    is_causal: bool,
    with_sums: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    sums = query.new_empty(query.shape[:2] if with_sums else (0,), dtype=torch.float32)
    return torch.empty_like(query), sums


@torch.library.custom_op("stabmon::sigmoid_attention_backward", mutates_args=())
def backward_op(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    bias_value: float,
    alibi_slopes: Tensor | None,
    scale: float,
    is_causal: bool,
    bias_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of query, key, value and bias; the last is empty unless it is asked for."""
    from .backward import key_value_gradient, query_gradient

    grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
    query, key, value = aligned(query), aligned(key), aligned(value)
    problem = Problem(query, key, value, bias, bias_value, alibi_slopes, scale, is_causal)
    grad = aligned(grad if grad.stride(-1) == 1 else grad.contiguous())
    grad_bias = query_gradient(problem, grad, grads[0], bias_gradient)
    key_value_gradient(problem, grad, grads[1], grads[2])
    return *grads, grad_bias


@backward_op.register_fake
def _fake_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    bias_value: float,
    alibi_slopes: Tensor | None,
    scale: float,
    is_causal: bool,
    bias_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad_bias = query.new_empty((query.size(1),) if bias_gradient else (0,), dtype=torch.float32)
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), grad_bias


@torch.library.custom_op("stabmon::row_statistics", mutates_args=())
def row_statistics_op(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    bias_value: float,
    alibi_slopes: Tensor | None,
    scale: float,
    is_causal: bool,
    rows: int,
    offset: float,
) -> Tensor:
    """Return the sampled statistics [B, H, 8] float32."""
    from .statistics import row_statistics

    query, key = aligned(query), aligned(key)
    return row_statistics(Problem(query, key, key, bias, bias_value, alibi_slopes, scale, is_causal), rows, offset)


@row_statistics_op.register_fake
def _fake_statistics(
    query: Tensor,
    key: Tensor,
    bias: Tensor | None,
    bias_value: float,
    alibi_slopes: Tensor | None,
    scale: float,
    is_causal: bool,
    rows: int,
    offset: float,
) -> Tensor:
    return query.new_empty((*query.shape[:2], 8), dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, bias, ctx.bias_value, slopes, ctx.scale, ctx.is_causal, *_ = inputs
    ctx.save_for_backward(query, key, value, bias, slopes)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    query, key, value, bias, slopes = ctx.saved_tensors
    wanted = bias is not None and ctx.needs_input_grad[3]
    grad_query, grad_key, grad_value, grad_bias = backward_op(
        grad, query, key, value, bias, ctx.bias_value, slopes, ctx.scale, ctx.is_causal, wanted
    )
    return grad_query, grad_key, grad_value, grad_bias if wanted else None, None, None, None, None, None, None


sigmoid_attention_op.register_autograd(_differentiate, setup_context=_keep)
