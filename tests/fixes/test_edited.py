"""Fixes of models of Transformers, and of converted models."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stabmon
from stabmon.conversion import edit
from stabmon.errors import FixError
from stabmon.fixes import bias_fix, layer_scale_fix, learnable_bias_fix, qk_norm_fix
from stabmon.fixes.change import Safety
from stabmon.fixes.suggest import together
from stabmon.records import Attention
from tests.transformers_models import CASES, LENGTH

PATH = "model.layers.1.self_attn"
ATTENTION = Attention(
    layer="model.layers.1", module=PATH, block="model.layers.1", branch=None, kind="functional", heads=4, head_dim=8,
    editable=True,
)  # fmt: skip
FIXES = {
    "bias": (bias_fix(ATTENTION, -1.5, "test"), set()),
    "learnable_bias": (learnable_bias_fix(ATTENTION, "test"), {"sigmoid_bias"}),
    "qk_norm": (qk_norm_fix(ATTENTION, "test", 0.5), {"sigmoid_query_norm.weight", "sigmoid_key_norm.weight"}),
    "layer_scale": (layer_scale_fix(ATTENTION, 0.1, "test"), {"sigmoid_layer_scale.gain"}),
}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_bias_of_zero_is_flagged_in_every_layer_and_the_fixes_make_the_model_healthy(
    name: str, tmp_path: Path
) -> None:
    model, batch = CASES[name].build(sigmoid_bias=0.0), CASES[name].batch(LENGTH)
    report = stabmon.preflight(model, batch)
    assert {finding.code for finding in report.findings} == {"CFG001"}
    assert {fix.kind for fix in report.fixes} == {"bias"}
    assert len(report.fixes) == 2
    for fix in report.fixes:
        assert fix.safety is Safety.ANY_TIME
        fix.apply(model)
    assert stabmon.preflight(model, batch).healthy
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="sigmoid")
    assert stabmon.preflight(loaded, batch).healthy


@pytest.mark.parametrize("kind", FIXES)
def test_a_fix_changes_the_attention_as_its_code_does(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    fix, new = FIXES[kind]
    applied_to, by_code, batch = CASES["llama"].build(), CASES["llama"].build(), CASES["llama"].batch()
    before = applied_to(**batch).logits
    with caplog.at_level(logging.WARNING, "stabmon"):
        applied = fix.apply(applied_to)
    assert set(applied.parameters) == {f"{PATH}.{name}" for name in new}
    assert bool(caplog.messages) is bool(new)
    exec(fix.code, {"model": by_code})
    after = applied_to(**batch).logits
    assert torch.equal(after, by_code(**batch).logits)
    assert torch.equal(after, before) is (kind == "learnable_bias")
    assert fix.diff.splitlines()[1:] == [f"+{line}" for line in fix.code.splitlines()]


def test_a_refused_part_takes_the_others_back() -> None:
    model, batch = CASES["llama"].build(), CASES["llama"].batch()
    edit.add_layer_scale(model, PATH, 0.1)
    before, written = model(**batch).logits, model.config.to_dict()
    with pytest.raises(FixError, match="it has a LayerScale already"):
        together(FIXES["bias"][0], FIXES["layer_scale"][0]).apply(model)
    assert torch.equal(model(**batch).logits, before)
    assert model.config.to_dict() == written


def test_a_converted_model_takes_fixes_and_one_that_has_softmax_does_not() -> None:
    model: Any = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), 1)
    batch = torch.randn(2, 16, 32)
    at = ATTENTION.model_copy(update={"module": "layers.0.self_attn"})
    with pytest.raises(FixError, match="stabmon changes only its own"):
        bias_fix(at, -1.5, "test").apply(model)
    stabmon.convert(model, bias=0.0)
    for fix in stabmon.preflight(model, batch).fixes:
        fix.apply(model)
    assert stabmon.preflight(model, batch).healthy
