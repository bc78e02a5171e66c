"""nn.MultiheadAttention against plain PyTorch over all rows: layouts, masks, separate dimensions, no random number."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import Schedule, watch
from stabmon.series import is_missing

E, H, N = 8, 2, 6


class Around(nn.Module):
    """A residual block around one MultiheadAttention."""

    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(E, H, **options)

    def forward(self, x, *args, **kwargs):
        return x + self.attention(x, *args, **kwargs)[0]


def _oracle(module, query, key, value, allowed):
    """All inputs [B, N, *] float64, allowed [B, N_q, N_k] bool; numbers per head over all rows."""
    weights = (
        module.in_proj_weight.chunk(3)
        if module.in_proj_weight is not None
        else (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    )
    biases = module.in_proj_bias.chunk(3) if module.in_proj_bias is not None else (None,) * 3
    q, k, v = (
        nn.functional.linear(x, weight.double(), None if bias is None else bias.double())
        .unflatten(-1, (H, -1))
        .transpose(1, 2)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    z = q @ k.transpose(-1, -2) / math.sqrt(q.size(-1))
    allowed = allowed[:, None].expand_as(z)
    p = z.masked_fill(~allowed, -torch.inf).softmax(-1)
    keys = allowed.sum(-1, keepdim=True)
    found = {name: [] for name in ("logit_max", "logit_mean", "logit_std", "saturated_fraction", "dead_fraction")}
    for head in range(H):
        where = allowed[:, head]
        seen, weight = z[:, head][where], p[:, head][where]
        found["logit_max"].append(seen.max())
        found["logit_mean"].append(seen.mean())
        found["logit_std"].append(seen.std(correction=0))
        found["saturated_fraction"].append((weight > 0.5).double().mean())
        found["dead_fraction"].append((weight * keys[:, head].expand_as(where)[where] < 0.01).double().mean())
    found = {name: torch.stack(values) for name, values in found.items()}
    return found | {
        "attention_norm": (p @ v).square().sum((2, 3)).mean(0).sqrt(),
        "row_mass": torch.ones(H),
        "query_norm": q.square().sum(-1).mean((0, 2)).sqrt(),
        "key_norm": k.square().sum(-1).mean((0, 2)).sqrt(),
    }


def _check(model, inputs, oracle, quiet, kept, kwargs=None):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model(*inputs, **kwargs or {}).sum().backward()
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        model(*inputs, **kwargs or {}).sum().backward()
        assert torch.equal(torch.get_rng_state(), after)
        monitor.step()
        assert not monitor.failures
    for metric, values in oracle.items():
        np.testing.assert_allclose(kept.of(metric), values.detach().numpy(), rtol=2e-5, atol=1e-6, err_msg=metric)
    assert not kept.layout.of_metric("bias")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_self_attention_over_all_rows(quiet, kept, batch_first, bias):
    model = Around(batch_first=batch_first, bias=bias, dropout=0.3)
    if bias:
        nn.init.normal_(model.attention.in_proj_bias)
    x = torch.randn(3, N, E)
    allowed = torch.ones(3, N, N, dtype=torch.bool)
    oracle = _oracle(model.attention, *(x.double(),) * 3, allowed)
    x = x if batch_first else x.transpose(0, 1)
    _check(model, (x, x, x), oracle, quiet, kept)


def test_unbatched_input(quiet, kept):
    model, x = Around(), torch.randn(N, E)
    oracle = _oracle(model.attention, *(x[None].double(),) * 3, torch.ones(1, N, N, dtype=torch.bool))
    _check(model, (x, x, x), oracle, quiet, kept)


def test_separate_key_and_value_dimensions(quiet, kept):
    model = Around(kdim=5, vdim=3, batch_first=True)
    x, key, value = torch.randn(2, N, E), torch.randn(2, 9, 5), torch.randn(2, 9, 3)
    oracle = _oracle(model.attention, x.double(), key.double(), value.double(), torch.ones(2, N, 9, dtype=torch.bool))
    _check(model, (x, key, value), oracle | {"keys": torch.tensor([9.0])}, quiet, kept)


@pytest.mark.parametrize("form", ["bool", "float", "per-head"])
def test_causal_mask_and_padding_are_honoured(quiet, kept, form):
    model, x = Around(batch_first=True), torch.randn(3, N, E)
    causal = torch.ones(N, N, dtype=torch.bool).tril()
    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[1, 4:] = True
    allowed = causal & ~padding[:, None, :]
    oracle = _oracle(model.attention, *(x.double(),) * 3, allowed)
    mask = {"bool": ~causal, "float": torch.zeros(N, N).masked_fill(~causal, -torch.inf)}.get(form)
    if mask is None:
        mask = (~causal).expand(3 * H, N, N)
    padded = torch.zeros(3, N).masked_fill(padding, -torch.inf) if form == "float" else padding
    kwargs = {"attn_mask": mask, "key_padding_mask": padded, "need_weights": False}
    _check(model, (x, x, x), oracle, quiet, kept, kwargs)


def test_pairs_are_counted_in_fp32_under_autocast(quiet, kept):
    model, x = Around(batch_first=True), torch.randn(3, 100, E)
    nn.init.normal_(model.attention.in_proj_weight)
    with watch(model, schedule=Schedule(rows=1000), **quiet) as monitor:
        with torch.autocast("cpu", torch.bfloat16):
            model(x, x, x).float().sum().backward()
        monitor.step()
        assert not monitor.failures
    pairs = kept.of("dead_fraction").astype(np.float64) * 3 * 100 * 100  # 30,000 is no number of bf16
    assert (pairs > 256).all()
    np.testing.assert_allclose(pairs, pairs.round(), atol=0.01)


def test_a_transformer_encoder_trains_with_the_same_bits(quiet, kept):
    def train(watched):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(E, H, 16, dropout=0.1, batch_first=True)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        optimizer = torch.optim.AdamW(model.parameters())
        manager = watch(model, optimizer, **quiet) if watched else None
        mask = nn.Transformer.generate_square_subsequent_mask(N)
        for _ in range(3):
            model(torch.randn(2, N, E), mask=mask, is_causal=True).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        if manager:
            assert not manager.failures
            manager.close()
        return [parameter.detach() for parameter in model.parameters()]

    for plain, seen in zip(train(False), train(True), strict=True):
        assert torch.equal(plain, seen)
    assert kept.layout.layers("row_mass") == ["layers.0", "layers.1"]
    np.testing.assert_allclose(kept.of("row_mass", step=2), 1.0)
    assert not is_missing(kept.of("branch_ratio", step=2)).any()


def test_keys_that_the_module_adds_itself_are_reported_as_unreadable(quiet, kept, caplog):
    model, x = Around(batch_first=True, add_zero_attn=True), torch.randn(2, N, E)
    with watch(model, **quiet) as monitor:
        model(x, x, x).sum().backward()
        monitor.step()
    assert "add_zero_attn" in caplog.text
    assert is_missing(kept.of("row_mass")).all()
