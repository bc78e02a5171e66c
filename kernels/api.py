"""The public function: checks, defaults, autocast, the observer, and the way to a backend."""

import math
from typing import NamedTuple, overload

import torch
from torch import Tensor

from . import launch, observe, reference, validation
from .auxiliary import STATISTICS, AuxOutput, AuxRequest


class _Problem(NamedTuple):
    """A checked call with every default filled in."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | float
    scale: float
    is_causal: bool
    alibi_slopes: Tensor | None


@overload
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | float | None = ...,
    scale: float | None = ...,
    is_causal: bool = ...,
    alibi_slopes: Tensor | None = ...,
    enable_gqa: bool = ...,
    return_aux: None = ...,
    backend: launch.Backend = ...,
) -> Tensor: ...
@overload
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | float | None = ...,
    scale: float | None = ...,
    is_causal: bool = ...,
    alibi_slopes: Tensor | None = ...,
    enable_gqa: bool = ...,
    return_aux: AuxRequest,
    backend: launch.Backend = ...,
) -> tuple[Tensor, AuxOutput]: ...
def sigmoid_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    bias: Tensor | float | None = None,
    scale: float | None = None,
    is_causal: bool = False,
    alibi_slopes: Tensor | None = None,
    enable_gqa: bool = False,
    return_aux: AuxRequest | None = None,
    backend: launch.Backend = "auto",
) -> Tensor | tuple[Tensor, AuxOutput]:
    """Compute sigmoid attention, out = sigmoid(scale·q kᵀ + b) v over each row's valid keys.

    Args:
        query: [B, H, N_q, D], any strides with the last dimension contiguous.
        key: [B, H_k, N_k, D]; H_k is H, or divides it with ``enable_gqa``.
        value: like ``key``.
        bias: added to every logit: None for -log N_k, a number, or a tensor [H] that receives its gradient. A model
            that sees several lengths should pass -log of its longest training length.
        scale: factor of q·k; 1/√D by default.
        is_causal: query i sees keys j <= i + N_k - N_q: the sequences end together, the last query sees every key,
            and a query without a key gives 0.
        alibi_slopes: [H], subtracts slope·|i + N_k - N_q - j| from the logit; receives no gradient.
        enable_gqa: allow fewer key heads than query heads; consecutive query heads share one.
        return_aux: also return the statistics it asks for. The output's bits do not depend on it.
        backend: "eager" (plain PyTorch, any device and float type), "triton" (CUDA capability 8.0 and newer, float16,
            bfloat16, float32, head dims 16 to 256 in multiples of 8), "hopper" (CUDA capability 9.0, float16 and
            bfloat16, head dims 40 to 128 in multiples of 8, no ALiBi; its backward is triton's), or "auto": hopper
            where it can, else triton, else eager.

    Returns:
        The output [B, H, N_q, D] in the inputs' type, or with ``return_aux`` a pair of it and an ``AuxOutput``.

    Raises:
        TypeError, ValueError: the arguments do not fit together; the message says which and how.
        RuntimeError: the machine cannot run the backend that was asked for.

    Numerics: products are accumulated in float32 (float64 for float64). The other backends round the weights to the
    inputs' type for the second product, as every fused attention does, and aim at an error against float64 within 1.5
    times that rounding. Under autocast q, k and v are cast and a float32 bias stays float32. README.md holds the
    derivation and the figures.

    References: Theory, Analysis, and Best Practices for Sigmoid Self-Attention, arXiv 2409.04431.
    """
    validation.check_tensors(query, key, value)
    query, key, value = _autocast(query, key, value)
    validation.check(query, key, value, bias, alibi_slopes, scale, enable_gqa, return_aux, backend)
    bias = -math.log(key.size(2)) if bias is None else bias
    bias = bias.float() if isinstance(bias, Tensor) and query.dtype != torch.float64 else bias
    scale = 1.0 / math.sqrt(query.size(3)) if scale is None else scale
    problem = _Problem(query, key, value, bias, scale, is_causal, alibi_slopes)
    chosen = launch.choose(backend, query.device, query.dtype, query.size(3), alibi_slopes is not None, scale)
    observer = observe.current()
    observed = None if observer is None else observer.request(query, key)
    output, sums = _attend(problem, chosen, return_aux is not None or observed is not None)
    if observer is not None:
        observer.record(observe.Call(*problem, output, _aux(problem, chosen, observed, sums)))
    aux = _aux(problem, chosen, return_aux, sums)
    return output if aux is None else (output, aux)


def _autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kind = query.device.type
    if query.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return query, key, value
    dtype = torch.get_autocast_dtype(kind)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _attend(problem: _Problem, backend: launch.Chosen, with_sums: bool) -> tuple[Tensor, Tensor | None]:
    if backend == "eager":
        output = reference.sigmoid_attention(*problem)
        return output, reference.output_square_sum(output) if with_sums else None
    from . import ops

    output, sums = ops.attend(*problem, with_sums, backend)
    return output, sums if with_sums else None


def _aux(
    problem: _Problem, backend: launch.Chosen, request: AuxRequest | None, sums: Tensor | None
) -> AuxOutput | None:
    if request is None or sums is None:
        return None
    if request.rows == 0:
        rest = sums.new_zeros(*sums.shape, len(STATISTICS) - 1)
        rest[..., -1] = -torch.inf
        return AuxOutput(torch.cat([sums[..., None], rest], dim=-1))
    query, key, _, bias, scale, is_causal, alibi_slopes = problem
    bias = bias.detach() if isinstance(bias, Tensor) else bias
    arguments = (query.detach(), key.detach(), bias, scale, is_causal, alibi_slopes, *request)
    if backend == "eager":
        return AuxOutput(torch.cat([sums[..., None], reference.row_statistics(*arguments)], dim=-1))
    from . import ops

    rest = ops.row_statistics(*arguments)
    return AuxOutput(torch.cat([sums[..., None], rest], dim=-1))
