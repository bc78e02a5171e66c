"""The softmax twin on the same queries, keys and values, and the bias at which rows would sum to one."""

import math

import torch
from torch import Tensor

from stabmon.kernels.eager import reference
from stabmon.kernels.problem import Problem
from stabmon.kernels.visibility import sampled_rows

CHUNK = 2**22
"""Logits that are held in memory at once."""
HALVINGS = 26
"""Steps of the bisection: a bracket of 20 ends below 1e-6."""


def softmax_square_sum(problem: Problem) -> Tensor:
    """Return Σ out² over batch, sequence and head dim, [H], of softmax(z) v with ``problem``'s mask, scale and ALiBi.

    Rows are computed in chunks, so memory grows with the length and not with its square. A row without a key gives 0.
    """
    batch, heads, queries, _ = problem.query.shape
    group = heads // problem.value.size(1)
    value = (problem.value if group == 1 else problem.value.repeat_interleave(group, dim=1)).float()
    rows = max(1, CHUNK // (batch * heads * problem.key.size(2)))
    total = torch.zeros(heads, device=problem.query.device)
    for positions in torch.split(torch.arange(queries, device=problem.query.device), rows):
        weights = torch.nan_to_num(masked_logits(problem, positions).softmax(-1), nan=0.0)  # a row without a key
        total += weights.matmul(value).square().sum((0, 2, 3))
    return total


def best_bias(problem: Problem, rows: int) -> Tensor:
    """Return the bias [H] float32 at which the mean row mass over ``rows`` evenly spaced queries a sequence is 1.

    NaN where the logits are not finite, and where rows see too few keys for a root to exist.
    """
    positions = sampled_rows(problem.query.size(2), rows, 0.5, problem.query.device)
    z = masked_logits(problem, positions).transpose(0, 1).flatten(1, 2)  # [H, B·R, N_k]
    return torch.stack([_root(head[(head != -torch.inf).any(-1)]) for head in z])


def _root(z: Tensor) -> Tensor:
    """Solve mean over rows of Σ_j sigmoid(z_j + b) = 1 for b by bisection; z [R, N], -inf where a key is not valid.

    With m <= z <= M over the valid keys, b lies in [-log(n - 1) - M, -log(n' - 1) - m], where n is the most and n' the
    mean number of keys of a row.
    """
    valid = z > -torch.inf
    keys = valid.sum(-1).float()
    nothing = z.new_full((), math.nan)
    if z.numel() == 0:
        return nothing
    lower = -torch.log(keys.max() - 1) - z.max()
    upper = -torch.log(keys.mean() - 1) - torch.where(valid, z, torch.inf).min()
    for _ in range(HALVINGS):
        middle = (lower + upper) / 2
        above = torch.sigmoid(z + middle).sum(-1).mean() > 1
        lower, upper = torch.where(above, lower, middle), torch.where(above, middle, upper)
    found = (lower + upper) / 2
    return torch.where(found.isfinite(), found, nothing)


def masked_logits(problem: Problem, rows: Tensor) -> Tensor:
    """Return z [B, H, R, N_k] float32 of the queries ``rows`` [R], -inf where a key is not valid."""
    return reference.masked_logits(problem, rows).float()
