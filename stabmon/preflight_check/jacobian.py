"""A bound on the Jacobian of an attention, for sigmoid weights and for softmax on the same q, k, v, with its factors.

One head maps the tokens x_i (rows of its input) to f_i = Σ_j w_ij W_v x_j with logits z_ij. Its Jacobian is the sum of
three: the weights themselves, and the change of each row's weights through its query and through its keys.

    sigmoid   ‖J‖₂ ≤ ‖W_v‖₂ (σ_∞ + 2 σ'_∞ C),            C = ‖W_qᵀW_k‖₂ · mean_i ‖x_i‖²
    softmax   ‖J‖₂ ≤ ‖W_v‖₂ (√c + (1 + √p_∞) C_max),      C_max = ‖W_qᵀW_k‖₂ · max_i ‖x_i‖²

σ_∞ = n·sup sigmoid(z + b), σ'_∞ = n·sup sigmoid'(z + b) and p_∞ = n·sup softmax over the logits that occur, c is the
largest sum of a column of softmax's weights; W_qᵀW_k holds the scale of the logits. The sigmoid's form is remembered
from arXiv 2409.04431 (grade: remembered), and both follow in a few lines: the first term is the norm of the matrix w,
at most n·sup w, or √(largest row sum · largest column sum); the second is at most Σ_j w'_ij ‖W_v x_j‖ ‖∂z_ij/∂x_i‖ in
each row, and for softmax the covariance of the keys under the row's weights, at most max ‖x‖²; the third is at most the
Frobenius norm of its blocks.

RoPE rotates queries and keys by position: ‖W_qᵀW_k‖₂ then becomes ‖W_q‖₂‖W_k‖₂. A QK norm with gains g divides by
the length of each vector, so ‖∂z/∂x‖ is at most G_q = scale ‖W_q‖₂ · max g_q / min rms(q) · √D max g_k (and G_k), and C
becomes √(mean ‖x‖²) (G_q + G_k)/2. Heads are stacked: their bounds add as squares. The output projection is
not in it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stabmon.kernels.problem import Problem
from stabmon.nn import SigmoidAttention
from stabmon.nn.self_attention import SelfAttention
from stabmon.preflight_check.jacobian_report import JacobianBound
from stabmon.preflight_check.spectral import product_spectral_norm, spectral_norm
from stabmon.preflight_check.twin import CHUNK, masked_logits


class _Weights(NamedTuple):
    """Largest weights over all logits of a call, each [H]: n·sup sigmoid, n·sup sigmoid', n·sup softmax, column sum."""

    sigmoid: Tensor
    slope: Tensor
    softmax: Tensor
    column: Tensor


class _Coupling(NamedTuple):
    """Factors from a change of an input to one of a logit, [H]: over the mean of ‖x‖², and over its maximum."""

    mean: Tensor
    most_query: Tensor
    most_key: Tensor


def jacobian_bound(layer: str, module: SelfAttention, x: Tensor) -> JacobianBound:
    """Return the bound of ``module`` at the input ``x`` [B, N, width]; of several sequences, the largest factors.

    The sigmoid's numbers are NaN for a module with softmax weights.
    """
    with torch.no_grad():
        x = x.detach()
        projections = module.qkv.weight.detach().double().unflatten(0, (3, module.heads, -1))  # type: ignore[no-untyped-call]
        norms = spectral_norm(projections)  # [3, H]
        weights = _largest_weights(module, x)
        squares = x.double().square().sum(-1)  # [B, N]
        mean, most = float(squares.mean(-1).max()), float(squares.max())
        coupling = _coupling(module, x, projections, norms, mean, most)
        sigmoid = norms[2] * (weights.sigmoid + 2 * weights.slope * coupling.mean)
        keys = coupling.most_key * weights.softmax.sqrt()
        softmax = norms[2] * (weights.column.sqrt() + coupling.most_query + keys)
    ours = isinstance(module, SigmoidAttention)
    return JacobianBound(
        layer=layer,
        sigmoid=float(sigmoid.square().sum().sqrt()) if ours else math.nan,
        softmax=float(softmax.square().sum().sqrt()),
        query_norm=float(norms[0].max()),
        key_norm=float(norms[1].max()),
        value_norm=float(norms[2].max()),
        coupling=float(coupling.mean.max()),
        coupling_max=float(torch.maximum(coupling.most_query, coupling.most_key).max()),
        input_mean_square=mean,
        input_max_square=most,
        sigma=float(weights.sigmoid.max()) if ours else math.nan,
        sigma_slope=float(weights.slope.max()) if ours else math.nan,
        softmax_weight=float(weights.softmax.max()),
        softmax_column=float(weights.column.max()),
    )


def problem_of(module: SelfAttention, x: Tensor) -> Problem:
    """Return the problem that ``module`` solves for the input ``x`` [B, N, width]."""
    query, key, value = module.project(x)
    bias = module.bias.detach() if isinstance(module, SigmoidAttention) else None
    scale = 1 / math.sqrt(module.head_dim)
    return Problem(query, key, value, bias, 0.0, module.alibi_slopes, scale, module.is_causal)


def _largest_weights(module: SelfAttention, x: Tensor) -> _Weights:
    problem = problem_of(module, x)
    batch, heads, length, _ = problem.query.shape
    bias = problem.any_bias[:, None, None] if isinstance(problem.any_bias, Tensor) else problem.any_bias
    size = x.new_zeros(3, heads, dtype=torch.float64)
    columns = x.new_zeros(batch, heads, length, dtype=torch.float64)
    rows = max(1, CHUNK // (batch * heads * length))
    for positions in torch.split(torch.arange(length, device=x.device), rows):
        z = masked_logits(problem, positions).double()  # [B, H, R, N]
        weight, soft = torch.sigmoid(z + bias), z.softmax(-1)
        found = [part.amax((0, 2, 3)) for part in (weight, weight * (1 - weight), soft)]
        size = torch.maximum(size, torch.stack(found))
        columns += soft.sum(-2)
    sigmoid, slope, softmax = length * size
    return _Weights(sigmoid, slope, softmax, columns.amax((0, 2)))


def _coupling(
    module: SelfAttention, x: Tensor, projections: Tensor, norms: Tensor, mean: float, most: float
) -> _Coupling:
    scale = 1 / math.sqrt(module.head_dim)
    if isinstance(module.query_norm, nn.Identity):
        if module.position == "rope":
            product = norms[0] * norms[1]
        else:
            product = product_spectral_norm(projections[0], projections[1])
        return _Coupling(scale * product * mean, scale * product * most, scale * product * most)
    query, key = _normed_slopes(module, x, norms)
    return _Coupling(
        math.sqrt(mean) * (query + key) * scale / 2, math.sqrt(most) * query * scale, math.sqrt(most) * key * scale
    )


def _normed_slopes(module: SelfAttention, x: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Return how much q·k can change with the input of the query and of the key, each [H], under a QK norm."""
    query, key, _ = module.qkv(x).double().unflatten(-1, (3, module.heads, -1)).unbind(2)  # [B, N, H, D]
    shortest = [part.square().mean(-1).sqrt().amin((0, 1)) for part in (query, key)]
    gains = [float(norm.weight.abs().max()) for norm in (module.query_norm, module.key_norm)]  # type: ignore[operator]
    other = gains[0] * gains[1] * math.sqrt(module.head_dim)
    return norms[0] * other / shortest[0], norms[1] * other / shortest[1]
