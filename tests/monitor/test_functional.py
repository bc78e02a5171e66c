"""A foreign module that calls ``sigmoid_attention``: its calls are recorded, those of others are not."""

import math

import numpy as np
import torch
from torch import nn

from stabmon import Schedule, watch
from stabmon.kernels import sigmoid_attention


class Foreign(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 2
        self.to_q, self.to_kv = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        query = self.to_q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        key, value = self.to_kv(x).unflatten(-1, (2, 1, 4)).transpose(1, 3).unbind(2)
        return sigmoid_attention(query, key, value, enable_gqa=True).transpose(1, 2).flatten(2)


def test_its_calls_are_recorded_with_the_bias_they_were_made_with(quiet, kept):
    model, x = nn.Sequential(Foreign(), nn.Linear(8, 8)), torch.randn(3, 5, 8)
    with watch(model, schedule=Schedule(rows=100), **quiet) as monitor:
        model(x).sum().backward()
        sigmoid_attention(*torch.randn(3, 1, 2, 4, 4))
        monitor.step()
        assert not monitor.failures
    output = model[0](x).detach().unflatten(-1, (2, 4))
    np.testing.assert_allclose(kept.of("bias"), -math.log(5), rtol=1e-6)
    np.testing.assert_allclose(kept.of("attention_norm"), output.square().sum((1, 3)).mean(0).sqrt(), rtol=1e-5)
    key = model[0].to_kv(x).detach().unflatten(-1, (2, 1, 4))[:, :, 0, 0]
    np.testing.assert_allclose(kept.of("key_norm"), [key.square().sum(-1).mean().sqrt()] * 2, rtol=1e-5)
    assert kept.of("keys") == 5


def test_a_module_called_twice_in_a_pass_adds_up(quiet, kept):
    model, x = Foreign(), torch.randn(3, 5, 8)
    around = nn.Sequential(model, nn.Identity(), model)
    with watch(around, schedule=Schedule(rows=100), **quiet) as monitor:
        around(x).sum().backward()
        monitor.step()
    first = model(x).detach()
    both = torch.cat([first, model(first).detach()]).unflatten(-1, (2, 4))
    np.testing.assert_allclose(kept.of("attention_norm"), both.square().sum((1, 3)).mean(0).sqrt(), rtol=1e-5)
