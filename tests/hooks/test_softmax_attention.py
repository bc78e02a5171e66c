"""stabmon's own SoftmaxAttention against plain PyTorch over all rows: masks, positions, padding, no random number."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import Schedule, preflight, watch
from stabmon.nn import SoftmaxAttention, alibi_slopes

WIDTH, HEADS, LENGTH = 8, 2, 6


class Around(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = SoftmaxAttention(WIDTH, HEADS, **options)

    def forward(self, x, lengths=None):
        return x + self.attention(x, lengths)


def _oracle(attention, x, lengths):
    """Numbers per head over all rows, in float64."""
    query, key, value = (part.detach().double() for part in attention.project(x))
    place = torch.arange(LENGTH)
    z = query @ key.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
    if attention.position == "alibi":
        z = z - alibi_slopes(HEADS)[:, None, None].double() * (place[:, None] - place).abs()
    allowed = (place <= place[:, None]) if attention.is_causal else torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    if lengths is not None:
        allowed = allowed & (place < lengths[:, None, None, None])
    allowed = allowed.expand_as(z)
    p = z.masked_fill(~allowed, -torch.inf).softmax(-1)
    seen = [(z[:, head][allowed[:, head]], (p * allowed.sum(-1, keepdim=True))[:, head]) for head in range(HEADS)]
    return {
        "attention_norm": (p @ value).square().sum((2, 3)).mean(0).sqrt(),
        "row_mass": torch.ones(HEADS),
        "logit_max": torch.stack([logit.max() for logit, _ in seen]),
        "logit_mean": torch.stack([logit.mean() for logit, _ in seen]),
        "logit_std": torch.stack([logit.std(correction=0) for logit, _ in seen]),
        "saturated_fraction": (p > 0.5).double().sum((0, 2, 3)) / allowed.sum((0, 2, 3)),
        "query_norm": query.square().sum(-1).mean((0, 2)).sqrt(),
        "key_norm": key.square().sum(-1).mean((0, 2)).sqrt(),
    }


@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 2, 5])], ids=["full", "padded"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["every-key", "causal"])
@pytest.mark.parametrize("position", [None, "rope", "alibi"])
def test_the_statistics_are_plain_pytorchs(position, is_causal, lengths, quiet, kept):
    model = Around(position=position, is_causal=is_causal, qk_norm=True)
    x = 3 * torch.randn(3, LENGTH, WIDTH)
    state = torch.get_rng_state()
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        model(x, lengths).sum().backward()
        monitor.step()
        assert not monitor.failures
    assert torch.equal(torch.get_rng_state(), state)
    for metric, values in _oracle(model.attention, x, lengths).items():
        np.testing.assert_allclose(kept.of(metric), values.numpy(), rtol=2e-5, atol=1e-6, err_msg=metric)
    assert not kept.layout.of_metric("bias")


def test_fewer_rows_than_there_are_keep_the_norm_exact(quiet, kept):
    model, x = Around(), torch.randn(3, LENGTH, WIDTH)
    with watch(model, schedule=Schedule(rows=1), **quiet) as monitor:
        model(x).sum().backward()
        monitor.step()
    expected = _oracle(model.attention, x, None)["attention_norm"].numpy()
    np.testing.assert_allclose(kept.of("attention_norm"), expected, rtol=2e-5)
    assert kept.of("row_mass").tolist() == [1.0, 1.0]


def test_preflight_compares_softmax_with_itself():
    report = preflight(Around(), torch.randn(2, LENGTH, WIDTH))
    assert report.map.attentions[0].kind == "softmax"
    assert report.rows[0].twin_ratio == pytest.approx(1.0)
    assert report.healthy
