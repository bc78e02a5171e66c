"""Spectral norms of matrices and of products of two matrices, in float64."""

import math

import torch
from torch import Tensor


def spectral_norm(matrix: Tensor) -> Tensor:
    """Return the largest singular value of ``matrix`` [..., M, N], [...] float64; NaN where it is not finite."""
    work = matrix.detach().double()
    finite = work.isfinite().all(-1).all(-1)
    norms: Tensor = torch.linalg.matrix_norm(work.where(finite[..., None, None], 0.0), ord=2)
    return norms.where(finite, math.nan)


def product_spectral_norm(left: Tensor, right: Tensor) -> Tensor:
    """Return the largest singular value of ``leftᵀ right``, [...] float64, for [..., K, M] and [..., K, N].

    With ``leftᵀ = Q₁R₁`` and ``rightᵀ = Q₂R₂`` it is that of ``R₁R₂ᵀ``, which is K × K: small for a head's projections.
    """
    factors = [torch.linalg.qr(part.detach().double().mT, mode="r").R for part in (left, right)]
    return spectral_norm(factors[0] @ factors[1].mT)
