"""How wrong a backend is, and how wrong nobody can help being: errors against float64 beside the rounding floor.

The floor multiplies exactly, in float64, and rounds only what a fused kernel must round: the weights P for the output
and dV, the logit gradient dS for dQ, dK and the bias, and each result, all to the inputs' type. In float32 every sum is
rounded too, so that its floor is the plain float32 computation, in the worst of a few orders of the sums over the head
dim: one order may be lucky, above all where a result hangs on a single weight.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import reference

NAMES = ("output", "query", "key", "value", "bias")
ALLOWED = 1.5
"""Largest error over floor that is accepted."""
ORDERS = 8
"""Orders of the sums over the head dim, of which the worst is float32's floor."""


class Case(NamedTuple):
    """One call and its incoming gradient; ``bias`` a number or [H], the rest as in ``sigmoid_attention``."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | float
    grad: Tensor
    is_causal: bool = False
    alibi_slopes: Tensor | None = None

    @property
    def scale(self) -> float:
        """The default factor of q·k."""
        return float(self.query.size(-1) ** -0.5)


Results = Mapping[str, Tensor]


def exact(case: Case, dtype: torch.dtype = torch.float64) -> Results:
    """Return output and gradients of the eager backend, computed in ``dtype``."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (case.query, case.key, case.value)]
    bias = case.bias
    if isinstance(bias, Tensor):
        bias = bias.detach().to(dtype).requires_grad_()
        leaves.append(bias)
    query, key, value = leaves[:3]
    output = reference.sigmoid_attention(query, key, value, bias, case.scale, case.is_causal, case.alibi_slopes)
    grads = torch.autograd.grad(output, leaves, case.grad.to(dtype))
    return dict(zip(NAMES, (output.detach(), *grads), strict=False))


def floor(case: Case) -> Results:
    """Return output and gradients of a 16-bit case with the unavoidable roundings alone, as float64."""
    dtype = case.query.dtype
    query, grad = case.query.double(), case.grad.double()
    group = query.size(1) // case.key.size(1)
    keys, values = (tensor.double().repeat_interleave(group, 1) for tensor in (case.key, case.value))
    weights, slopes = (tensor.to(dtype).double() for tensor in _weights_and_slopes(case, group))

    def per_key(tensor: Tensor) -> Tensor:
        return tensor.reshape(tensor.size(0), -1, group, *tensor.shape[2:]).sum(2)

    found = (
        weights @ values,
        case.scale * slopes @ keys,
        case.scale * per_key(slopes.transpose(-1, -2) @ query),
        per_key(weights.transpose(-1, -2) @ grad),
    )
    rounded = {name: tensor.to(dtype).double() for name, tensor in zip(NAMES, found, strict=False)}
    return rounded | {"bias": slopes.sum((0, 2, 3))} if isinstance(case.bias, Tensor) else rounded


def _weights_and_slopes(case: Case, group: int) -> tuple[Tensor, Tensor]:
    """Return P and dS = P (1 - P) dP, [B, H, N_q, N_k] float64."""
    query, key, value, grad = (x.double() for x in (case.query, case.key, case.value, case.grad))
    bias = case.bias.double()[:, None, None] if isinstance(case.bias, Tensor) else case.bias
    weights = torch.sigmoid(reference.logits(query, key, case.scale, case.alibi_slopes) + bias)
    if case.is_causal:
        weights = weights.tril(key.size(2) - query.size(2))
    slopes = weights * (1 - weights) * (grad @ value.repeat_interleave(group, 1).transpose(-1, -2))
    return weights, slopes


def ratios(case: Case, results: Results) -> dict[str, float]:
    """Return the error of each of ``results`` over that of the floor, both as norms over the whole tensor."""
    truth = exact(case)
    least = _plain_errors(case) if case.query.dtype == torch.float32 else _errors(floor(case), truth)
    bounds = {name: max(least[name], _luck(case.query.dtype)) for name in results}
    if "bias" in bounds:
        bounds["bias"] = max(bounds["bias"], _expected_bias_error(case, truth))
    return {name: _error(found, truth[name]) / bounds[name] for name, found in results.items()}


def _errors(results: Results, truth: Results) -> dict[str, float]:
    return {name: _error(found, truth[name]) for name, found in results.items()}


def _plain_errors(case: Case) -> dict[str, float]:
    """Return the largest error of each result of the plain float32 computation over a few orders of its sums."""
    generator = torch.Generator().manual_seed(0)
    found: list[dict[str, float]] = []
    for _ in range(ORDERS):
        order = torch.randperm(case.query.size(-1), generator=generator).to(case.query.device)
        query, key, value, grad = (x[..., order] for x in (case.query, case.key, case.value, case.grad))
        same = case._replace(query=query, key=key, value=value, grad=grad)
        found.append(_errors(exact(same, torch.float32), exact(same)))
    return {name: max(errors[name] for errors in found) for name in found[0]}


def _luck(dtype: torch.dtype) -> float:
    """Return the relative error below which a floor is luck: few numbers may happen to need no rounding."""
    eps = torch.finfo(dtype).eps
    return eps if dtype == torch.float32 else eps / 8


def _expected_bias_error(case: Case, truth: Results) -> float:
    """Return the error to expect of Σ dS, since that of a few heads is luck.

    Each dS is rounded once, relative to its size; in float32 the products over D that make it round √D times as much.
    """
    _, slopes = _weights_and_slopes(case, case.query.size(1) // case.key.size(1))
    roundings = case.query.size(-1) ** 0.5 if case.query.dtype == torch.float32 else 1.0
    return float(roundings * torch.finfo(case.query.dtype).eps / 2 * slopes.norm() / truth["bias"].norm())


def run(attention: Callable[..., Tensor], case: Case) -> Results:
    """Return output and gradients of ``attention(query, key, value, bias=..., ...)``, called as users call it."""
    leaves = [tensor.detach().requires_grad_() for tensor in (case.query, case.key, case.value)]
    bias = case.bias
    if isinstance(bias, Tensor):
        bias = bias.detach().requires_grad_()
        leaves.append(bias)
    output = attention(
        *leaves[:3], bias=bias, is_causal=case.is_causal, alibi_slopes=case.alibi_slopes, enable_gqa=True
    )
    grads = torch.autograd.grad(output, leaves, case.grad)
    return dict(zip(NAMES, (output.detach(), *grads), strict=False))


def _error(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm().clamp_min(torch.finfo(torch.float32).tiny))
