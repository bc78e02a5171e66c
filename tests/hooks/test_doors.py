"""Attention of other libraries, against plain PyTorch over all rows in float64."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from stabmon import Schedule, record_attention, watch
from stabmon.discover import scan
from stabmon.series import is_missing

WIDTH, HEADS, LENGTH, BATCH = 8, 2, 6, 3


class Attends(nn.Module):
    """A residual branch that calls ``attend`` with q of 2 heads and k, v of ``key_heads``, [B, H, N, D]."""

    def __init__(self, attend, key_heads=HEADS):
        super().__init__()
        self.attend, self.key_heads = attend, key_heads
        self.q, self.kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * key_heads * WIDTH // HEADS)

    def project(self, x):
        query = self.q(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key, value = self.kv(x).unflatten(-1, (2, self.key_heads, -1)).permute(2, 0, 3, 1, 4)
        return query, key, value

    def forward(self, x):
        return x + self.attend(*self.project(x)).transpose(1, 2).flatten(2)


def _masked(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=SEEN)


def _finite(q, k, v):
    mask = torch.where(SEEN, 0.25, torch.finfo(q.dtype).min)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _grouped(q, k, v):
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def _by_hand(q, k, v):
    output = (q @ k.mT / 2).masked_fill(~SEEN, -torch.inf).softmax(-1) @ v
    record_attention(q, k, output, kind="softmax", attn_mask=SEEN)
    return output


SEEN = torch.arange(LENGTH) < torch.tensor([6, 4, 5])[:, None, None, None]
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


@pytest.mark.parametrize(
    ("attend", "key_heads", "seen", "added"),
    [(_masked, 2, SEEN, 0), (_finite, 2, SEEN, 0.25), (_grouped, 1, CAUSAL, 0), (_by_hand, 2, SEEN, 0)],
    ids=["boolean mask", "finfo.min", "grouped, causal", "by hand"],
)
def test_softmax_attention_is_recorded_as_it_was_computed(attend, key_heads, seen, added, quiet, kept):
    model, x = nn.Sequential(Attends(attend, key_heads)), torch.randn(BATCH, LENGTH, WIDTH)
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        model(x).sum().backward()
        monitor.step()
        assert not monitor.failures
    q, k, v = (part.detach().double().expand(-1, HEADS, -1, -1) for part in model[0].project(x))
    z = q @ k.mT / 2 + added
    p = z.masked_fill(~seen, -torch.inf).softmax(-1)
    output, valid = p @ v, seen.expand_as(p)
    expected = {
        "attention_norm": output.square().sum((2, 3)).mean(0).sqrt(),
        "row_mass": torch.ones(HEADS),
        "entropy": torch.special.entr(p).sum(-1).mean((0, 2)),
        "largest_weight": p.amax(-1).mean((0, 2)),
        "logit_max": torch.stack([z[:, head][valid[:, head]].max() for head in range(HEADS)]),
        "logit_std": torch.stack([z[:, head][valid[:, head]].std(correction=0) for head in range(HEADS)]),
        "branch_ratio": (output.square().mean() / x.double().square().mean()).sqrt()[None],
        "residual_in": x.double().square().mean().sqrt()[None],
    }
    for metric, values in expected.items():
        np.testing.assert_allclose(kept.of(metric), values.numpy(), rtol=2e-5, atol=1e-6, err_msg=metric)


def test_sigmoid_attention_by_hand_is_recorded_with_its_bias(quiet, kept):
    bias = nn.Parameter(torch.tensor([-1.0, -2.0]))

    def attend(q, k, v):
        output = torch.sigmoid(q @ k.mT / 2 + bias[:, None, None]) @ v
        record_attention(q, k, output, bias=bias)
        return output

    model, x = nn.Sequential(Attends(attend)), torch.randn(BATCH, LENGTH, WIDTH)
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        model(x).sum().backward()
        monitor.step()
        assert not monitor.failures
    q, k, _ = (part.detach().double() for part in model[0].project(x))
    weights = torch.sigmoid(q @ k.mT / 2 + bias.detach().double()[:, None, None])
    np.testing.assert_allclose(kept.of("bias"), [-1.0, -2.0])
    np.testing.assert_allclose(kept.of("row_mass"), weights.sum(-1).mean((0, 2)), rtol=1e-5)
    assert not kept.layout.of_metric("entropy")


def test_showing_attention_does_nothing_where_nobody_watches_and_compiles():
    q = torch.randn(1, 2, 4, 4)
    assert record_attention(q[0], q, q) is None
    compiled = torch.compile(lambda q: (record_attention(q, q, q), q + 1)[1], backend="eager", fullgraph=True)
    assert torch.equal(compiled(q), q + 1)


def test_what_is_shown_wrongly_is_a_failure_and_not_an_exception(quiet, kept):
    wrong = []

    def attend(q, k, v):
        record_attention(q[0] if wrong else q, k, v)
        return v

    model, x = nn.Sequential(Attends(attend)), torch.randn(BATCH, LENGTH, WIDTH)
    with watch(model, **quiet) as monitor:
        for _ in range(2):
            model(x).sum().backward()
            monitor.step()
            wrong.append(True)
    (failure,) = monitor.failures
    assert "0: ValueError: record_attention takes query as [B, H, N, D], got shape [2, 6, 4]" in failure
    assert is_missing(kept.of("row_mass", step=1)).all()


class Zeros(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.start = Attends(_grouped, 1), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.block(x * 0 + self.start)


def test_a_ratio_to_a_stream_of_zeros_is_missing_and_no_infinity(quiet, kept):
    model = Zeros()
    with watch(model, **quiet) as monitor:
        model(torch.randn(BATCH, LENGTH, WIDTH)).sum().backward()
        monitor.step()
    assert kept.of("residual_in") == 0
    assert is_missing(kept.of("branch_ratio")).all()
    assert is_missing(kept.of("block_growth")).all()
    assert not monitor.findings


def test_flex_attention_is_recorded_with_its_modifications(quiet, kept):
    flex = pytest.importorskip("torch.nn.attention.flex_attention")

    def score(z, batch, head, query, key):
        return z - 0.5 * (query - key).abs() * (head + 1)

    def attend(q, k, v):
        mask = flex.create_block_mask(lambda b, h, i, j: i >= j, None, None, LENGTH, LENGTH, device="cpu")
        return flex.flex_attention(q, k, v, score_mod=score, block_mask=mask)

    model, x = nn.Sequential(Attends(attend)), torch.randn(BATCH, LENGTH, WIDTH)
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        try:
            model(x).sum()
        except (NotImplementedError, RuntimeError) as error:
            pytest.skip(f"flex attention does not run here: {error}")
        monitor.step()
        assert not monitor.failures
    q, k, _ = (part.detach().double() for part in model[0].project(x))
    place = torch.arange(LENGTH)
    z = q @ k.mT / math.sqrt(4) - 0.5 * (place[:, None] - place).abs() * torch.tensor([1.0, 2.0])[:, None, None]
    p = z.masked_fill(~CAUSAL, -torch.inf).softmax(-1)
    np.testing.assert_allclose(kept.of("entropy"), torch.special.entr(p).sum(-1).mean((0, 2)), rtol=1e-5)


def test_x_transformers_sigmoid_is_recorded_as_sigmoid(quiet, kept):
    library = pytest.importorskip("x_transformers")
    layers = library.Decoder(dim=WIDTH, depth=1, heads=HEADS, attn_dim_head=4, attn_sigmoid=True)
    model = library.TransformerWrapper(num_tokens=16, max_seq_len=LENGTH, attn_layers=layers)
    tokens = torch.randint(16, (BATCH, LENGTH))
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        model(tokens).sum().backward()
        monitor.step()
    (attention,) = monitor.map.attentions
    assert (attention.kind, attention.bias, attention.is_causal) == ("functional", 0.0, True)
    keys = np.arange(1, LENGTH + 1)
    np.testing.assert_allclose(kept.of("row_mass"), keys.mean() / 2, rtol=0.2)


@pytest.mark.parametrize("option", ["attn_hard", "attn_gumbel_softmax"])
def test_other_weights_of_x_transformers_are_no_softmax(option):
    library = pytest.importorskip("x_transformers")
    layers = library.Encoder(dim=WIDTH, depth=1, heads=HEADS, attn_dim_head=4, **{option: True})
    model = library.TransformerWrapper(num_tokens=16, max_seq_len=LENGTH, attn_layers=layers)
    found = scan(model, (torch.randint(16, (BATCH, LENGTH)),), {})
    assert not found.sites
    assert "has weights of a form stabmon does not know" in found.notes[0]


def test_query_heads_of_x_transformers_share_key_heads_in_its_own_order(quiet, kept):
    library = pytest.importorskip("x_transformers")
    layers = library.Decoder(dim=WIDTH, depth=1, heads=4, attn_kv_heads=2, attn_dim_head=4)
    model = library.TransformerWrapper(num_tokens=16, max_seq_len=LENGTH, attn_layers=layers)
    tokens = torch.randint(16, (BATCH, LENGTH))
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        model(tokens).sum().backward()
        monitor.step()
        assert not monitor.failures
    _, passed = model(tokens, return_intermediates=True)
    p = passed.attn_intermediates[0].post_softmax_attn.detach().double()
    np.testing.assert_allclose(kept.of("entropy"), torch.special.entr(p).sum(-1).mean((0, 2)), rtol=1e-5)
