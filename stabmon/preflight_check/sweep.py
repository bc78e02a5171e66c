"""The length sweep of preflight: rows of other lengths, from queries and keys alone, without a training."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stabmon.errors import ConfigError
from stabmon.kernels.eager.reference import sampled_rows
from stabmon.kernels.problem import Problem
from stabmon.nn import SigmoidAttention
from stabmon.preflight_check.jacobian import problem_of
from stabmon.preflight_check.sweep_report import LengthReport
from stabmon.preflight_check.twin import best_bias, masked_logits

ROWS = 64
"""Query rows per head and length whose weights are computed."""


def lengths_of(text: str) -> tuple[int, ...]:
    """Read lengths: ``256:16384`` doubles from the first up to the second, ``512,1000`` names each.

    Raises:
        ConfigError: neither form, a length below 2, or a range that ends before it begins.
    """
    try:
        ends = [int(part) for part in text.replace(":", ",").split(",")]
    except ValueError:
        ends = []
    if not ends or min(ends) < 2 or (":" in text and (len(ends) != 2 or ends[0] > ends[1])):
        raise ConfigError(f"lengths must be FIRST:LAST, such as 256:16384, or numbers of at least 2, got {text!r}")
    return tuple(_doubling(*ends)) if ":" in text else tuple(sorted(set(ends)))


def _doubling(first: int, last: int) -> Iterator[int]:
    while first <= last:
        yield first
        first *= 2


def sweep(layer: str, module: SigmoidAttention, x: Tensor, lengths: Sequence[int]) -> tuple[LengthReport, ...]:
    """Return how ``module`` starts at each of ``lengths``, for inputs like ``x`` [B, N, width].

    Only its own queries, keys and values are computed, with positions of that length, and ``ROWS`` rows of weights. A
    shorter row is the beginning of a sequence of ``x``; a longer one is the batch's sequences one behind the other, as
    often as it takes. What earlier layers would make of another length is not in it.

    Raises:
        ValueError: a length is below 2.
    """
    if min(lengths) < 2:
        raise ValueError(f"a row needs at least 2 keys to have a best bias, got lengths {sorted(lengths)}")
    return tuple(_at(layer, module, x.detach(), length) for length in sorted(set(lengths)))


def _at(layer: str, module: SigmoidAttention, x: Tensor, length: int) -> LengthReport:
    with torch.no_grad():
        problem = problem_of(module, _of_length(x, length))
        mass, ratio = _rows(problem)
        best = best_bias(problem, ROWS)
    return LengthReport(
        layer=layer,
        length=length,
        row_mass=float(mass.mean()),
        twin_ratio=float(ratio.square().mean().sqrt()),
        bias=float(module.bias.detach().mean()),
        best_bias=float(best.mean()),
    )


def _of_length(x: Tensor, length: int) -> Tensor:
    if length <= x.size(1):
        return x[:, :length]
    tokens = x.flatten(0, 1)  # [B·N, width]
    return tokens.repeat(math.ceil(length / tokens.size(0)), 1)[None, :length]


def _rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the mean row mass and the twin ratio of each head, [H], over sampled rows."""
    z = masked_logits(problem, sampled_rows(problem.query.size(2), ROWS, 0.5, problem.query.device))
    weights = torch.sigmoid(
        z + problem.any_bias[:, None, None] if isinstance(problem.any_bias, Tensor) else z + problem.any_bias
    )
    value = problem.value.float()
    ours, twin = (part.matmul(value).square().sum((0, 2, 3)) for part in (weights, z.softmax(-1)))
    return weights.sum(-1).mean((0, 2)), (ours / twin).sqrt()
