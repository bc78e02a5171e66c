"""Spectral norms by power iteration."""

import torch
from torch import Tensor

ROUNDS = 500
"""Most rounds of the iteration."""
SETTLED = 1e-7
"""Relative change in a round at which it is taken to have ended."""


def spectral_norm(matrix: Tensor) -> Tensor:
    """Return the largest singular value of ``matrix`` [..., M, N], [...] float64.

    The iteration starts at the row with the largest norm, so that it draws no random number. It comes from below and
    ends within ``SETTLED`` a round, which is 1e-4 or less for random matrices; a zero matrix gives 0.
    """
    work = matrix.detach().double()
    rows = work.square().sum(-1).argmax(-1, keepdim=True)
    vector = torch.take_along_dim(work, rows[..., None], -2).transpose(-1, -2)  # [..., N, 1]
    found = torch.zeros(work.shape[:-2], dtype=torch.float64, device=work.device)
    for _ in range(ROUNDS):
        image = work @ _unit(vector)
        before, found = found, image.norm(dim=(-2, -1))
        if bool(((found - before) <= SETTLED * found).all()):
            break
        vector = work.transpose(-1, -2) @ image
    return found


def _unit(vector: Tensor) -> Tensor:
    length: Tensor = vector.norm(dim=-2, keepdim=True)
    return vector / length.clamp_min(torch.finfo(torch.float64).tiny)
