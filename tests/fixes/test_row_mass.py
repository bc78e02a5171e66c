"""The bias that a run's own numbers give, against the root on the very logits."""

import math

import pytest
import torch

from stabmon.fixes.row_mass import alibi_bias, best_bias, mean_weight, row_mass_at
from stabmon.nn import alibi_slopes


def logits(keys: int, spread: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(rows, 64, generator=generator, dtype=torch.float64) for rows in (64, keys))
    return spread * query @ key.T / 8


def root(z: torch.Tensor) -> float:
    low, high = -40.0, 5.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if mass(z, middle) > 1 else (middle, high)
    return low


def mass(z: torch.Tensor, bias: float) -> float:
    return float(torch.sigmoid(z + bias).sum(-1).mean())


@pytest.mark.parametrize(("spread", "error"), [(0.3, 0.01), (1.0, 0.02), (2.0, 0.1)])
@pytest.mark.parametrize("bias", [0.0, -3.0, -7.0, -12.0])
def test_the_row_mass_of_any_bias_leads_to_the_root(spread: float, error: float, bias: float) -> None:
    z = logits(1024, spread)
    found = best_bias(mass(z, bias), bias, float(z.mean()), float(z.std()))
    assert found == pytest.approx(root(z), abs=error)


def test_where_nothing_is_saturated_it_is_the_bias_less_the_log_of_the_row_mass() -> None:
    assert best_bias(0.02, -11.0) == pytest.approx(-11.0 - math.log(0.02), abs=2e-3)


def test_the_row_mass_at_another_bias_is_that_of_the_same_logits() -> None:
    z = logits(1024, 1.0)
    expected = row_mass_at(-6.0, mass(z, 0.0), 0.0, float(z.mean()), float(z.std()))
    assert expected == pytest.approx(mass(z, -6.0), rel=0.02)


@pytest.mark.parametrize("given", [(math.nan, 0.0), (math.inf, 0.0), (0.0, -3.0), (0.4, 0.0)])
def test_there_is_no_bias_where_a_row_has_nothing_to_sum(given: tuple[float, float]) -> None:
    assert best_bias(*given) is None


def test_the_mean_weight_of_equal_logits_is_their_sigmoid() -> None:
    assert mean_weight(-2.0, 0.5) == pytest.approx(1 / (1 + math.exp(1.5)), rel=1e-12)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("heads", [4, 8])
def test_the_bias_under_alibi_makes_the_middle_heads_sum_to_about_one(heads: int, is_causal: bool) -> None:
    at = torch.arange(512)
    distance = (at[:, None] - at).abs()
    hidden = (at > at[:, None]) if is_causal else torch.zeros_like(distance, dtype=torch.bool)
    z = (-alibi_slopes(heads)[:, None, None] * distance).masked_fill(hidden, -torch.inf)
    masses = torch.sigmoid(z + alibi_bias(heads, 512, is_causal)).sum(-1).mean(-1)
    middle = masses.log().sort().values[heads // 2 - 1 : heads // 2 + 1].mean().exp()
    assert 0.8 < middle < 1.25


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("heads", range(1, 18))
def test_the_bias_under_alibi_is_that_of_the_slopes_of_any_number_of_heads(heads: int, is_causal: bool) -> None:
    slopes, length = alibi_slopes(heads).double(), 512
    before = torch.exp(-slopes[:, None] * torch.arange(length if is_causal else length // 2)).sum(-1)  # [heads]
    keys = before if is_causal else (2 * before - 1).clamp(min=1)
    middle = keys.log().sort().values[[(heads - 1) // 2, heads // 2]].mean()
    assert alibi_bias(heads, length, is_causal) == pytest.approx(-float(middle), rel=1e-6)
