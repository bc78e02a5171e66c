"""Error of a backend relative to the unavoidable rounding floor, both measured against float64.

The floor multiplies exactly, in float64, and rounds only what a fused kernel must round: the weights P for the output
and dV, the logit gradient dS for dQ, dK and the bias, and each result, all to the inputs' type. In float32 every sum is
rounded too: its floor is the worse of the plain float32 computation and of sums over the head dim that take one product
after the other, in the worst of a few orders, since one may be lucky where a result hangs on a single weight.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import visibility
from ..api import sigmoid_attention
from ..eager import reference

NAMES = ("output", "query", "key", "value", "bias")
ALLOWED = 1.5
"""Largest error over floor that is accepted."""
ORDERS = 32
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
    window: int | None = None
    key_lengths: Tensor | None = None
    attn_mask: Tensor | None = None

    @property
    def scale(self) -> float:
        """The default factor of q·k."""
        return float(self.query.size(-1) ** -0.5)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the call but the bias."""
        names = ("is_causal", "alibi_slopes", "window", "key_lengths", "attn_mask")
        return {"enable_gqa": True, **{name: getattr(self, name) for name in names}}


Results = Mapping[str, Tensor]


def exact(case: Case, dtype: torch.dtype = torch.float64) -> Results:
    """Return output and gradients of the eager backend, computed in ``dtype``."""
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (case.query, case.key, case.value)]
    bias = case.bias
    if isinstance(bias, Tensor):
        bias = bias.detach().to(dtype).requires_grad_()
        leaves.append(bias)
    query, key, value = leaves[:3]
    output = sigmoid_attention(query, key, value, bias=bias, backend="eager", **case.options)
    grads = torch.autograd.grad(output, leaves, case.grad.to(dtype))
    return dict(zip(NAMES, (output.detach(), *grads), strict=False))


def floor(case: Case) -> Results:
    """Return output and gradients of a 16-bit case with the unavoidable roundings alone, as float64."""
    group = case.query.size(1) // case.key.size(1)
    dtype = case.query.dtype
    weights, slopes = (tensor.to(dtype).double() for tensor in _weights_and_slopes(case, group, _exact_product))
    return {
        name: tensor if name == "bias" else tensor.to(dtype).double()
        for name, tensor in _results(case, group, weights, slopes).items()
    }


def _results(case: Case, group: int, weights: Tensor, slopes: Tensor) -> Results:
    """Return output and gradients, multiplied exactly, of P and dS [B, H, N_q, N_k] float64."""
    query, grad = case.query.double(), case.grad.double()
    keys, values = (tensor.double().repeat_interleave(group, 1) for tensor in (case.key, case.value))

    def per_key(tensor: Tensor) -> Tensor:
        return tensor.reshape(tensor.size(0), -1, group, *tensor.shape[2:]).sum(2)

    found = {
        "output": weights @ values,
        "query": case.scale * slopes @ keys,
        "key": case.scale * per_key(slopes.transpose(-1, -2) @ query),
        "value": per_key(weights.transpose(-1, -2) @ grad),
    }
    return found | {"bias": slopes.sum((0, 2, 3))} if isinstance(case.bias, Tensor) else found


Product = Callable[[Tensor, Tensor], Tensor]
"""Sums of products over the last dimension: [..., N_q, D] and [..., N_k, D] give [..., N_q, N_k]."""


def _exact_product(left: Tensor, right: Tensor) -> Tensor:
    return left.double() @ right.double().transpose(-1, -2)


def _one_by_one(order: Tensor) -> Product:
    """Return the float32 product that adds one product after the other, in the ``order`` [D] given."""

    def product(left: Tensor, right: Tensor) -> Tensor:
        total = left.new_zeros(*left.shape[:-1], right.size(-2))
        for index in order.tolist():
            total.addcmul_(left[..., index, None], right[..., None, :, index])
        return total

    return product


def _weights_and_slopes(case: Case, group: int, product: Product) -> tuple[Tensor, Tensor]:
    """Return P and dS = P (1 - P) dP, [B, H, N_q, N_k], in the type of ``product``."""
    key, value = (tensor.repeat_interleave(group, 1) for tensor in (case.key, case.value))
    z = case.scale * product(case.query, key)
    if case.alibi_slopes is not None:
        z = z + reference.logits(torch.zeros_like(case.query), torch.zeros_like(key), 1.0, case.alibi_slopes).to(
            z.dtype
        )
    if case.attn_mask is not None and case.attn_mask.is_floating_point():
        z = z + case.attn_mask
    bias = case.bias.to(z.dtype)[:, None, None] if isinstance(case.bias, Tensor) else case.bias
    weights = torch.sigmoid(z + bias)
    valid = _visible(case)
    if valid is not None:
        weights = weights.masked_fill(~valid, 0.0)
    return weights, weights * (1 - weights) * product(case.grad, value)


def _visible(case: Case) -> Tensor | None:
    n_q, n_k = case.query.size(2), case.key.size(2)
    positions = torch.arange(n_q, device=case.query.device) + (n_k - n_q)
    stop = None if case.key_lengths is None else case.key_lengths[:, None, None]
    valid = visibility.visible_keys(positions, n_k, case.is_causal, case.window, stop=stop)
    if valid is not None and valid.dim() == 3:
        valid = valid[:, None]
    if case.attn_mask is None:
        return valid
    shown = visibility.shown(case.attn_mask)
    return shown if valid is None else valid & shown


def ratios(case: Case, results: Results) -> dict[str, float]:
    """Return the error of each of ``results`` over that of the floor, both as norms over the whole tensor."""
    truth = exact(case)
    least = _plain_errors(case, truth) if case.query.dtype == torch.float32 else _errors(floor(case), truth)
    bounds = {name: max(least[name], _luck(case.query.dtype)) for name in results}
    if "bias" in bounds:
        bounds["bias"] = max(bounds["bias"], expected_bias_error(case, truth))
    return {name: _error(found, truth[name]) / bounds[name] for name, found in results.items()}


def _errors(results: Results, truth: Results) -> dict[str, float]:
    return {name: _error(found, truth[name]) for name, found in results.items()}


def _plain_errors(case: Case, truth: Results) -> dict[str, float]:
    """Return the largest error of each result of a float32 case: as torch computes it, and one product by one."""
    group, dim = case.query.size(1) // case.key.size(1), case.query.size(-1)
    generator = torch.Generator().manual_seed(0)
    found = [_errors(exact(case, torch.float32), truth)]
    for _ in range(ORDERS):
        product = _one_by_one(torch.randperm(dim, generator=generator))
        weights, slopes = (tensor.double() for tensor in _weights_and_slopes(case, group, product))
        found.append(_errors(_results(case, group, weights, slopes), truth))
    return {name: max(errors[name] for errors in found) for name in found[0]}


def _luck(dtype: torch.dtype) -> float:
    """Return the relative error below which a floor is luck: few numbers may happen to need no rounding."""
    eps = torch.finfo(dtype).eps
    return eps if dtype == torch.float32 else eps / 8


def expected_bias_error(case: Case, truth: Results) -> float:
    """Return the error to expect of Σ dS, since that of a few heads is luck.

    Each dS is rounded once, relative to its size; in float32 the products over D that make it round √D times as much.
    """
    _, slopes = _weights_and_slopes(case, case.query.size(1) // case.key.size(1), _exact_product)
    roundings = case.query.size(-1) ** 0.5 if case.query.dtype == torch.float32 else 1.0
    return float(roundings * torch.finfo(case.query.dtype).eps / 2 * slopes.norm() / truth["bias"].norm())


def run(attention: Callable[..., Tensor], case: Case) -> Results:
    """Return output and gradients of ``attention(query, key, value, bias=..., ...)``, called as users call it."""
    leaves = [tensor.detach().requires_grad_() for tensor in (case.query, case.key, case.value)]
    bias = case.bias
    if isinstance(bias, Tensor):
        bias = bias.detach().requires_grad_()
        leaves.append(bias)
    output = attention(*leaves[:3], bias=bias, **case.options)
    grads = torch.autograd.grad(output, leaves, case.grad)
    return dict(zip(NAMES, (output.detach(), *grads), strict=False))


def _error(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm().clamp_min(torch.finfo(torch.float32).tiny))
