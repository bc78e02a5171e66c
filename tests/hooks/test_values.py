"""Every recorded number against float64 autograd over all rows; sampling as many rows as there are makes it exact."""

import copy
import math

import numpy as np
import pytest
import torch

from stabmon import Schedule, watch
from stabmon.hooks.forward import CallObserver
from stabmon.series import is_missing

EXACT = Schedule(rows=1000)


def _tokens(step):
    return torch.randint(32, (3, 12), generator=torch.Generator().manual_seed(step))


def _rms(x):
    return x.square().mean().sqrt()


def _attention(module, x):
    """Return the attention's numbers per head and its output before the projection, all rows, in float64."""
    query, key, value = module.project(x)
    n = x.size(1)
    z = query @ key.transpose(-1, -2) / math.sqrt(query.size(-1))
    valid = torch.ones(n, n, dtype=torch.bool)
    if module.is_causal:
        valid = valid.tril()
    keys = valid.sum(-1)
    weights = torch.sigmoid(z + module.bias.double()[:, None, None]) * valid
    output = weights @ value
    over = (0, 2, 3)
    seen = z[..., valid]  # [B, H, pairs]
    per_head = {
        "attention_norm": output.square().sum((2, 3)).mean(0).sqrt(),
        "output_rms": output.square().mean(over).sqrt(),
        "row_mass": weights.sum(-1).mean((0, 2)),
        "logit_max": seen.amax((0, 2)),
        "logit_mean": seen.mean((0, 2)),
        "logit_std": seen.transpose(0, 1).flatten(1).std(-1, correction=0),
        "saturated_fraction": (weights > 0.5)[..., valid].double().mean((0, 2)),
        "dead_fraction": (weights < 1 / (100 * keys[:, None]))[..., valid].double().mean((0, 2)),
        "query_norm": query.square().sum(-1).mean((0, 2)).sqrt(),
        "key_norm": key.square().sum(-1).mean((0, 2)).sqrt(),
        "bias": module.bias.double(),
    }
    return per_head, output


def _oracle(model, tokens):
    """Return {layer: {metric: values}} of one forward pass without dropout, in float64."""
    x = model.embedding(tokens)
    found = {}
    for index, block in enumerate(model.layers):
        numbers, output = _attention(block.attention, block.attention_norm(x))
        branch = block.attention_scale(block.attention.out(output.transpose(1, 2).flatten(2)))
        out = block(x)
        numbers |= {
            "keys": torch.tensor(float(tokens.size(1))),
            "residual_in": _rms(x),
            "residual_out": _rms(out),
            "branch_ratio": _rms(branch) / _rms(x),
            "block_growth": _rms(out) / _rms(x),
            "layer_scale": block.attention_scale.gain.abs().mean(),
        }
        found[f"layers.{index}"] = numbers
        x = out
    return found


def _compare(kept, layer, expected, step=0):
    for metric, values in expected.items():
        got = kept.of(metric, layer, step)
        np.testing.assert_allclose(got, values.detach().numpy().reshape(-1), rtol=2e-5, atol=1e-6, err_msg=metric)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": 1.5, "is_causal": False},
        {"bias": "learnable", "qk_norm": True, "position": "rope"},
    ],
    ids=["length", "full-b1.5", "learnable-qknorm-rope"],
)
def test_every_metric_is_what_float64_over_all_rows_gives(tiny, quiet, kept, loss, options):
    model = tiny(**options)
    model.dropout.p = 0.0
    with torch.no_grad():
        for block in model.layers:
            block.attention.qkv.weight.mul_(4)
    double = copy.deepcopy(model).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    with watch(model, optimizer, schedule=EXACT, **quiet) as monitor:
        value = loss(model, 0)
        value.backward()
        optimizer.step()
        monitor.log(loss=value)
    for layer, expected in _oracle(double, _tokens(0)).items():
        _compare(kept, layer, expected)
        assert {*expected, "gradient_norm"} == {one.metric for one in kept.layout.columns if one.layer == layer}
    _compare_gradients(kept, double, loss)
    assert kept.of("loss") == np.float32(value.item())
    assert kept.of("learning_rate") == np.float32(0.125)


def _compare_gradients(kept, double, loss):
    loss(double, 0).backward()
    norm = torch.nn.utils.get_total_norm
    for index, block in enumerate(double.layers):
        expected = norm([p.grad for p in block.parameters()])
        np.testing.assert_allclose(kept.of("gradient_norm", f"layers.{index}"), expected.item(), rtol=1e-5)
    np.testing.assert_allclose(
        kept.of("total_gradient_norm"), norm([p.grad for p in double.parameters()]).item(), rtol=1e-5
    )


def test_few_sampled_rows_are_near_all_rows(tiny, quiet, kept, loss):
    model = tiny()
    model.dropout.p = 0.0
    with watch(model, schedule=Schedule(rows=12), **quiet) as monitor:
        for step in range(20):
            loss(model, step).backward()
            monitor.step()
    sampled = np.mean([kept.of("row_mass", step=step) for step in range(20)], axis=0)
    model.eval().double()
    expected = np.mean(
        [
            np.concatenate([numbers["row_mass"].detach() for numbers in _oracle(model, _tokens(step)).values()])
            for step in range(20)
        ],
        axis=0,
    )
    np.testing.assert_allclose(sampled, expected, rtol=0.03)


def test_gradient_norms_are_taken_before_clipping(tiny, quiet, kept, loss):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, **quiet):
        loss(model, 0).backward()
        before = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    np.testing.assert_allclose(kept.of("total_gradient_norm"), before.item(), rtol=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_activations_are_recorded_as_such(tiny, quiet, kept, loss, bad):
    model = tiny()
    with torch.no_grad():
        model.layers[1].attention.qkv.weight[-1, 0] = bad
    with watch(model, **quiet) as monitor:
        loss(model, 0).backward()
        monitor.step()
    norms = kept.of("attention_norm", "layers.1")
    assert not np.isfinite(norms).all()
    assert not is_missing(norms).any()
    assert np.isfinite(kept.of("attention_norm", "layers.0")).all()
    assert np.isnan(kept.of("total_gradient_norm")).all()
    assert not is_missing(kept.of("total_gradient_norm")).any()


def test_what_was_not_measured_is_missing_and_not_nan(tiny, quiet, kept):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model.layers.eval()
    with watch(model, optimizer, **quiet):
        model(torch.zeros(1, 4, dtype=torch.long))
        optimizer.step()
    row = kept.rows[0]
    rate = kept.layout.of_metric("learning_rate")[0].start
    assert not is_missing(row)[rate]
    assert is_missing(np.delete(row, rate)).all()


def test_a_fixed_bias_is_read_anew_when_it_is_changed_also_where_a_kernel_measures(
    tiny, quiet, kept, loss, monkeypatch
):
    def request(self, query, key):
        return self.recording.request(query.size(0))._replace(rows=4, sequences=1)

    monkeypatch.setattr(CallObserver, "request", request)  # as on a GPU
    model = tiny()
    with watch(model, **quiet) as monitor:
        for step in range(4):
            if step == 2:
                model.layers[1].attention.bias.fill_(-1.5)
            loss(model, step).backward()
            monitor.step()
        assert not monitor.failures
    for step in range(4):
        expected = torch.cat([model.layers[0].attention.bias, torch.full((4,), -1.5)])
        expected[4:] = -1.5 if step >= 2 else expected[0]
        np.testing.assert_array_equal(kept.of("bias", step=step), expected)
    assert np.isfinite(kept.of("logit_max", step=3)).all()
