import math

import pytest
import torch

from stabmon.nn import alibi_slopes, rotate


def rotated_by_hand(x: torch.Tensor, base: float) -> torch.Tensor:
    """RoPE as multiplication by a complex number, [B, H, N, D] float64."""
    half = x.shape[-1] // 2
    angles = torch.tensor(
        [
            [position * base ** (-2 * channel / (2 * half)) for channel in range(half)]
            for position in range(x.shape[-2])
        ],
        dtype=torch.float64,
    )
    rotated = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((rotated.real, rotated.imag), dim=-1)


def test_rotation_is_a_complex_product() -> None:
    query, key = torch.randn(2, 1, 2, 9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned_query, turned_key = rotate(query, key, base=100.0)
    torch.testing.assert_close(turned_query, rotated_by_hand(query, 100.0))
    torch.testing.assert_close(turned_key, rotated_by_hand(key, 100.0))


def test_rotated_products_depend_on_the_distance_alone() -> None:
    one_query, one_key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    query, key = rotate(one_query.expand(1, 1, 12, 8), one_key.expand(1, 1, 12, 8))
    products = (query @ key.transpose(-1, -2))[0, 0]
    for distance in range(-11, 12):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert not torch.isclose(products[0, 0], products[0, 5])


def test_rotation_keeps_type_and_length_of_a_vector() -> None:
    query = torch.randn(1, 1, 300, 64, generator=torch.Generator().manual_seed(2))
    rotated, _ = rotate(query, query)
    torch.testing.assert_close(rotated.norm(dim=-1), query.norm(dim=-1))
    exact, _ = rotate(query.double(), query.double())
    assert (rotated - exact).abs().max() < 1e-4
    assert rotate(query.bfloat16(), query.bfloat16())[0].dtype == torch.bfloat16


def test_rotation_in_half_precision_computes_its_angles_in_fp32() -> None:
    query = torch.ones(1, 1, 2000, 4, dtype=torch.bfloat16)
    rotated, _ = rotate(query, query)
    exact, _ = rotate(query.double(), query.double())
    assert (rotated.double() - exact).abs().max() <= 2**-8 * math.sqrt(
        2
    )  # half a unit in the last place of values up to √2


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (4, [2**-2, 2**-4, 2**-6, 2**-8]),
        (8, [2**-i for i in range(1, 9)]),
        (3, [2**-4, 2**-8, 2**-2]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
    ],
)
def test_alibi_slopes_are_the_geometric_sequence(heads: int, slopes: list[float]) -> None:
    assert alibi_slopes(heads).tolist() == pytest.approx(slopes)
