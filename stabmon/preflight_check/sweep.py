"""The length sweep of preflight: rows of other lengths, from queries and keys alone, without a training."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from stabmon.errors import ConfigError
from stabmon.kernels.problem import Problem
from stabmon.kernels.visibility import sampled_rows
from stabmon.nn.self_attention import SelfAttention
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


def sweep(layer: str, lengths: Sequence[int], of_length: Callable[[int], Problem]) -> tuple[LengthReport, ...]:
    """Return how an attention starts at each of ``lengths``, whose problem ``of_length`` returns.

    Only ``ROWS`` rows of weights are computed. What earlier layers would make of another length is not in it.

    Raises:
        ValueError: a length is below 2.
    """
    if min(lengths) < 2:
        raise ValueError(f"a row needs at least 2 keys to have a best bias, got lengths {sorted(lengths)}")
    return tuple(_at(layer, of_length, length) for length in sorted(set(lengths)))


def _at(layer: str, of_length: Callable[[int], Problem], length: int) -> LengthReport:
    with torch.no_grad():
        problem = of_length(length)
        mass, ratio = _rows(problem)
        best = best_bias(problem, ROWS)
    bias = problem.any_bias
    return LengthReport(
        layer=layer,
        length=length,
        row_mass=float(mass.mean()),
        twin_ratio=float(ratio.square().mean().sqrt()),
        bias=float(bias.detach().mean()) if isinstance(bias, Tensor) else bias,
        best_bias=float(best.mean()),
    )


def of_inputs(module: SelfAttention, x: Tensor, length: int) -> Problem:
    """Return the problem of ``module`` for ``length`` inputs like ``x`` [B, N, width], with positions of that length.

    A shorter row is the beginning of a sequence of ``x``; a longer one is the batch's sequences one behind the other,
    as often as it takes.
    """
    return problem_of(module, _of_length(x.detach(), length))


def of_tokens(problem: Problem, length: int) -> Problem:
    """Return ``problem`` with ``length`` of its own queries, keys and values, chosen as ``of_inputs`` does.

    Rotations that a position encoding gave them are those of the batch. A mask is left out: all tokens are valid.
    """
    query, key, value = (_of_length(part.transpose(1, 2), length).transpose(1, 2) for part in problem[:3])
    bias = problem.bias
    if bias is not None and bias.dim() == 2:  # one of each sequence
        bias = bias.mean(0).expand(query.size(1))
    alone = problem._replace(key_lengths=None, attn_mask=None, query_starts=None, key_starts=None)
    return alone._replace(query=query, key=key, value=value, bias=bias)


def _of_length(x: Tensor, length: int) -> Tensor:
    """Return ``length`` tokens of ``x`` [B, N, ...]."""
    if length <= x.size(1):
        return x[:, :length]
    tokens = x.flatten(0, 1)
    return tokens.repeat(math.ceil(length / tokens.size(0)), *(1,) * (tokens.dim() - 1))[None, :length]


def _rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return the mean row mass and the twin ratio of each head, [H], over sampled rows."""
    z = masked_logits(problem, sampled_rows(problem.query.size(2), ROWS, 0.5, problem.query.device))
    weights = torch.sigmoid(
        z + problem.any_bias[:, None, None] if isinstance(problem.any_bias, Tensor) else z + problem.any_bias
    )
    value = problem.value.float()
    ours, twin = (part.matmul(value).square().sum((0, 2, 3)) for part in (weights, z.softmax(-1)))
    return weights.sum(-1).mean((0, 2)), (ours / twin).sqrt()
