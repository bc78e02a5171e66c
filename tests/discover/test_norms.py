"""Norms whose input is within their eps are seen by what the pass computes."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from stabmon.discover import scan


class OwnNorm(nn.Module):
    """An RMS norm as Llama's code writes it."""

    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class Block(nn.Module):
    """Attention whose output is scaled before a norm, as in an HSTU."""

    def __init__(self, norm, scale):
        super().__init__()
        self.inner_norm, self.scale, self.out = norm, scale, nn.Linear(16, 16)

    def forward(self, x):
        q = x.view(2, 8, 2, 8).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).reshape(2, 8, 16)
        return x + self.out(self.inner_norm(self.scale * mixed))


def small(norm, scale):
    torch.manual_seed(0)
    return scan(nn.Sequential(Block(norm, scale)), (torch.randn(2, 8, 16),), {}).small_norms


NORMS = [nn.LayerNorm(16, eps=1e-6), nn.RMSNorm(16, eps=1e-6), OwnNorm(16, 1e-6)]


@pytest.mark.parametrize("norm", NORMS, ids=["layer norm", "rms norm", "own"])
def test_a_norm_of_attention_outputs_of_6e_5_is_within_its_eps(norm):
    (found,) = small(norm, 1e-4)
    assert found.module == "0.inner_norm"
    assert found.eps == pytest.approx(1e-6)
    assert 1e-10 < found.mean_square < 1e-8


@pytest.mark.parametrize("norm", NORMS, ids=["layer norm", "rms norm", "own"])
@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["of its size", "zeros"])
def test_inputs_of_their_size_and_zeros_are_left_out(norm, scale):
    assert small(norm, scale) == ()
