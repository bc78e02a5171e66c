"""A foreign module that calls ``sigmoid_attention``: its calls are recorded, those of others are not."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import Schedule, watch
from stabmon.kernels import sigmoid_attention, sigmoid_attention_varlen


class Foreign(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.to_q, self.to_kv = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        query = self.to_q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        key, value = self.to_kv(x).unflatten(-1, (2, 1, 4)).transpose(1, 3).unbind(2)
        return sigmoid_attention(query, key, value, enable_gqa=True).transpose(1, 2).flatten(2)


def test_functional_calls_are_recorded_with_their_bias(quiet, kept):
    model, x = nn.Sequential(Foreign(), nn.Linear(8, 8)), torch.randn(3, 5, 8)
    missing = "0: branch ratio and block growth are missing: its output joins no residual stream that can be recognised"
    with watch(model, schedule=Schedule(rows=100), **quiet) as monitor:
        model(x).sum().backward()
        sigmoid_attention(*torch.randn(3, 1, 2, 4, 4))
        monitor.step()
        assert monitor.failures == (missing,)
    output = model[0](x).detach().unflatten(-1, (2, 4))
    np.testing.assert_allclose(kept.of("bias"), -math.log(5), rtol=1e-6)
    np.testing.assert_allclose(kept.of("attention_norm"), output.square().sum((1, 3)).mean(0).sqrt(), rtol=1e-5)
    key = model[0].to_kv(x).detach().unflatten(-1, (2, 1, 4))[:, :, 0, 0]
    np.testing.assert_allclose(kept.of("key_norm"), [key.square().sum(-1).mean().sqrt()] * 2, rtol=1e-5)
    assert kept.of("keys") == 5


def test_a_module_called_twice_in_a_pass_has_series_of_each_call(quiet, kept):
    model, x = Foreign(), torch.randn(3, 5, 8)
    around = nn.Sequential(model, nn.Identity(), model)
    with watch(around, schedule=Schedule(rows=100), **quiet) as monitor:
        for _ in range(2):
            around(x).sum().backward()
        with pytest.raises(RuntimeError):
            around(x[..., :3])  # ends before any call; the next pass begins with the first again
        around(x).sum().backward()
        monitor.step()
    first = model(x).detach()
    both = torch.stack([first, model(first).detach()]).unflatten(-1, (2, 4))
    norms = both.square().sum((2, 4)).mean(1).sqrt().flatten()
    np.testing.assert_allclose(kept.of("attention_norm"), norms, rtol=1e-5)


class Padded(Foreign):
    def forward(self, x, lengths):
        query = self.to_q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        return sigmoid_attention(query, query, query, key_lengths=lengths, window=3).transpose(1, 2).flatten(2)


class Packed(Foreign):
    def forward(self, x, starts):
        query = self.to_q(x).unflatten(-1, (2, 4))
        return sigmoid_attention_varlen(query, query, query, starts, starts, 7, 7, bias=-1.0).flatten(1)


@pytest.mark.parametrize(
    ("attention", "x", "given", "keys"),
    [
        (Padded(), torch.randn(3, 12, 8), torch.tensor([12, 5, 7]), 12),
        (Packed(), torch.randn(12, 8), torch.tensor([0, 5, 12]), 7),
    ],
    ids=["padded", "packed"],
)
def test_windows_lengths_and_packed_sequences_are_recorded(attention, x, given, keys, quiet, kept):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = attention

        def forward(self, *arguments):
            return self.attention(*arguments)

    model = Model()
    with watch(model, schedule=Schedule(rows=100), **quiet) as monitor:
        model(x, given).sum().backward()
        monitor.step()
    assert len(monitor.failures) == 1, "there is no residual stream"
    assert kept.of("keys") == keys
    assert all(np.isfinite(kept.of(name)).all() for name in ("row_mass", "logit_max", "attention_norm", "bias"))
