"""Spectral norms against the eigenvalues of the Gram matrix, and where no decomposition exists."""

import math

import pytest
import torch
from torch import Tensor

from stabmon.preflight_check.spectral import product_spectral_norm, spectral_norm


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_eigenvalues(matrix: Tensor) -> Tensor:
    return torch.linalg.eigvalsh(matrix @ matrix.mT)[..., -1].sqrt()


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (2, 3, 64, 256), (300, 40)], ids=str)
def test_the_spectral_norm_is_the_root_of_the_largest_eigenvalue(shape: tuple[int, ...]) -> None:
    matrix = random(*shape)
    torch.testing.assert_close(spectral_norm(matrix), by_eigenvalues(matrix), rtol=1e-12, atol=0)


@pytest.mark.parametrize("widths", [(3, 8, 100, 100), (2, 8, 5, 7), (1, 1, 1)], ids=str)
def test_the_norm_of_a_product_is_that_of_the_multiplied_matrix(widths: tuple[int, ...]) -> None:
    *batch, inner, rows, columns = widths
    left, right = random(*batch, inner, rows), random(*batch, inner, columns, seed=1)
    expected = by_eigenvalues(left.mT @ right)
    torch.testing.assert_close(product_spectral_norm(left, right), expected, rtol=1e-12, atol=0)


def test_zero_has_norm_zero_and_a_zero_beside_others_does_not_spoil_them() -> None:
    matrices = torch.stack((torch.zeros(3, 4), torch.eye(3, 4)))
    assert spectral_norm(matrices).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_value_that_is_not_finite_gives_nan_for_its_own_matrix_alone(odd: float) -> None:
    matrices = torch.stack((torch.eye(3), torch.eye(3)))
    matrices[0, 1, 2] = odd
    norms = torch.stack((spectral_norm(matrices), product_spectral_norm(matrices, matrices)))
    assert norms[:, 0].isnan().all()
    torch.testing.assert_close(norms[:, 1], torch.ones(2, dtype=torch.float64))


def test_half_precision_is_computed_in_float64() -> None:
    matrix = random(8, 8).bfloat16()
    torch.testing.assert_close(spectral_norm(matrix), by_eigenvalues(matrix.double()), rtol=1e-12, atol=0)
