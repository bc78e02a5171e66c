"""Power iteration against the singular value decomposition."""

import pytest
import torch

from stabmon.preflight_check.spectral import spectral_norm


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (2, 3, 64, 256), (300, 40)], ids=str)
def test_it_is_the_largest_singular_value(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.linalg.matrix_norm(matrix, 2)
    found = spectral_norm(matrix)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    assert (found <= expected * (1 + 1e-12)).all()


def test_zero_has_norm_zero_and_a_zero_beside_others_does_not_spoil_them() -> None:
    matrices = torch.stack((torch.zeros(3, 4), torch.eye(3, 4)))
    assert spectral_norm(matrices).tolist() == [0.0, 1.0]


def test_half_precision_is_worked_out_in_double() -> None:
    matrix = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert spectral_norm(matrix) == pytest.approx(float(torch.linalg.matrix_norm(matrix.double(), 2)), rel=1e-4)
