"""Measures of one tensor, and numbers that are set at once, for both writers into the buffer."""

import torch
from torch import Tensor

from stabmon.kernels import AuxRequest


def wide(x: Tensor) -> torch.dtype:
    """Return the type that norms of ``x`` are accumulated in: float32, or float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)


def spread(x: Tensor, request: AuxRequest) -> Tensor:
    """Return the tokens of ``x`` [B, H, N, D] whose norms are measured: every k-th, from ``request.offset`` of k on.

    They are at least ``request.rows`` where there are as many, and the sampled rows themselves where those divide N.
    """
    step = max(1, x.size(2) // request.rows)
    return x[:, :, int(request.offset * step) :: step]


def square_norm(x: Tensor, heads: int) -> Tensor:
    """Return Σ x² per head of ``x`` [B, H, N, D], [heads] float32; a key head that queries share counts for each."""
    squares: Tensor = torch.linalg.vector_norm(x, dim=(0, 2, 3), dtype=wide(x)).square().float()
    return squares if squares.numel() == heads else squares.repeat_interleave(heads // squares.numel())


def output_squares(output: Tensor) -> Tensor:
    """Return Σ out² of ``output`` [B, H, N, D] per sequence and head, [B, H]."""
    squares: Tensor = torch.linalg.vector_norm(output.flatten(2), dim=-1, dtype=wide(output)).square_()
    return squares


def with_output(output: Tensor, rest: Tensor) -> Tensor:
    """Return all of the kernel's statistics, [1, H, 9], of the ``rest`` [S, H, 8] of some of ``output``'s sequences."""
    return with_squares(output_squares(output), rest)


def with_squares(squares: Tensor, rest: Tensor) -> Tensor:
    """Put Σ out² [B, H] before the ``rest`` [S, H, 8], both over their sequences: [1, H, 9]."""
    sums = squares.sum(0)[:, None].to(rest.dtype), rest[..., :-1].sum(0), rest[..., -1].amax(0)[:, None]
    return torch.cat(sums, dim=-1)[None]


def set_bias(element: Tensor, bias: Tensor | float) -> None:
    """Set the bias of each head, ``element`` [heads]; of a bias for each sequence, [B, 1], the mean."""
    if isinstance(bias, Tensor):
        element.copy_(bias.detach() if bias.dim() == 1 else bias.detach().mean())
    else:
        element.fill_(bias)


def set_gain(element: Tensor, gain: Tensor) -> None:
    """Set ``element`` [1] to the mean absolute value of a LayerScale's ``gain``."""
    element.copy_(gain.detach().abs().mean())
