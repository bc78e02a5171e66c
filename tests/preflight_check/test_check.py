"""preflight: what it measures, what it leaves alone, and what it says."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import stabmon
from stabmon import preflight, watch
from stabmon.errors import ModelError, WatchError
from stabmon.nn import Block, SigmoidAttention
from stabmon.store import open_run


class Model(nn.Module):
    def __init__(self, bias="length", length=64):
        super().__init__()
        self.layers = nn.ModuleList(Block(16, SigmoidAttention(16, 2, max_length=length, bias=bias)) for _ in range(2))
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x, shift=0.0):
        self.calls += 1
        for layer in self.layers:
            x = self.dropout(layer(x + shift + 0 * torch.rand(())))
        return x


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _normal_attention_block(model):
    with torch.no_grad():
        for layer in model.layers:
            nn.init.normal_(layer.attention.qkv.weight, std=0.25)
    return model


def test_a_naive_model_is_flagged_in_every_layer_with_the_bias_that_fixes_it():
    model = _normal_attention_block(Model(bias=0.0, length=256))
    report = preflight(model, torch.randn(2, 256, 16))
    assert not report.healthy
    assert {finding.layer for finding in report.findings} >= {"layers.0", "layers.1"}
    assert report.rows[0].twin_ratio > 10
    assert -7 < report.rows[0].best_bias < -4
    next(finding for finding in report.findings if finding.layer == "layers.0").fix.apply(model)
    assert model.layers[0].attention.bias.max() < -4


def test_a_model_with_minus_log_n_is_healthy():
    report = preflight(_normal_attention_block(Model()), torch.randn(2, 64, 16))
    assert report.healthy
    assert 0.5 < report.rows[0].row_mass < 3
    assert "healthy" in str(report)
    assert report.rows[0].bias == pytest.approx(-4.1589, abs=1e-3)


def test_twin_ratio_is_the_ratio_to_softmax_on_the_same_inputs():
    attention = SigmoidAttention(16, 2, max_length=8, bias=0.0, is_causal=True).double()
    x = torch.randn(3, 8, 16, dtype=torch.float64)
    query, key, value = attention.project(x)
    soft = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True).square().sum((0, 2, 3))
    z = (query @ key.mT) / 8**0.5
    sigmoid = (torch.sigmoid(z).tril() @ value).square().sum((0, 2, 3))
    report = preflight(nn.Sequential(attention.float()), x.float())
    expected = (sigmoid / soft).mean().sqrt()
    assert report.rows[0].twin_ratio == pytest.approx(expected.item(), rel=1e-4)


def test_the_model_is_left_as_it_was(count_hooks):
    model = Model().train()
    model.layers[1].eval()
    before, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state = torch.get_rng_state()
    preflight(model, torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert count_hooks(model) == 0
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("batch", ["tensor", "tuple", "mapping"])
def test_a_batch_is_a_tensor_arguments_or_keywords(batch):
    x = torch.randn(2, 8, 16)
    given = {"tensor": x, "tuple": (x, 0.5), "mapping": {"x": x, "shift": 0.5}}[batch]
    assert len(preflight(Model(), given).rows) == 2


def test_a_batch_that_does_not_fit_says_what_was_passed(count_hooks):
    model = Model().train()
    with pytest.raises(ModelError, match=r"called with \(float32\[2, 8, 3\] on cpu\) and raised RuntimeError"):
        preflight(model, torch.randn(2, 8, 3))
    assert model.training
    assert count_hooks(model) == 0


def test_softmax_in_an_encoder_is_seen_though_its_fast_path_would_hide_it():
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2, enable_nested_tensor=False
    )
    report = preflight(model.eval(), torch.randn(2, 8, 16))
    assert [row.layer for row in report.rows] == ["layers.0", "layers.1"]
    for row in report.rows:
        assert row.twin_ratio == pytest.approx(1)
        assert row.row_mass == pytest.approx(1)
        assert row.block_growth > 0
        assert row.bias != row.bias


def test_the_report_travels_as_json_with_nan():
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1, enable_nested_tensor=False
    )
    report = preflight(model, torch.randn(2, 8, 16))
    again = stabmon.PreflightReport.model_validate_json(report.model_dump_json())
    assert again.rows[0].best_bias != again.rows[0].best_bias
    assert again.map == report.map


def test_a_watched_model_can_be_checked_and_the_check_is_not_recorded(tmp_path):
    model = Model()
    x = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(0))
    rows = []
    for checked in (True, False):
        with watch(model, dir=tmp_path, name=str(checked), console=False) as monitor:
            if checked:
                preflight(model, 9 * x)
            torch.manual_seed(0)
            model(x)
            monitor.step()
        with open_run(monitor.path) as run:
            rows.append(run.after(0).rows)
    assert rows[0].shape[0] == 1
    np.testing.assert_array_equal(*(row.view(np.uint32) for row in rows))


def test_a_compiled_model_is_refused():
    model = Model()
    model.compile(backend="eager")
    with pytest.raises(WatchError, match="compiled"):
        preflight(model, torch.randn(2, 8, 16))
