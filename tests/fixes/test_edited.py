"""Fixes of models of Transformers, and of converted models."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import stabmon
import stabmon.integrations.transformers  # registers attn_implementation="sigmoid"
from stabmon.conversion import edit
from stabmon.errors import FixError
from stabmon.fixes import bias_fix, layer_scale_fix, learnable_bias_fix, qk_norm_fix
from stabmon.fixes.change import Safety
from stabmon.fixes.kinds.qk_norm import qk_norm_everywhere
from stabmon.fixes.record import Fix
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
    with pytest.raises(FixError, match="stabmon cannot change it in place"):
        bias_fix(at, -1.5, "test").apply(model)
    stabmon.convert(model, bias=0.0)
    for fix in stabmon.preflight(model, batch).fixes:
        fix.apply(model)
    assert stabmon.preflight(model, batch).healthy


X = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
PATHS = {
    "gpt2": "transformer.h.1.attn",
    "llama": "model.layers.1.self_attn",
    "bert": "bert.encoder.layer.1.attention.self",
    "vit": "vit.layers.1.attention",
    "bart": "model.decoder.layers.1.encoder_attn",
    "t5": "decoder.block.1.layer.0.SelfAttention",
}


def record(module: str) -> Attention:
    return ATTENTION.model_copy(update={"module": module})


def logits(model: Any, name: str) -> Tensor:
    return model(**CASES[name].batch()).logits


class Caller(nn.Module):
    """A block that calls PyTorch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 8
        self.qkv, self.out_proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).view(2, 8, 3, 4, 8).transpose(1, 3).unbind(2)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return x + self.out_proj(mixed.transpose(1, 2).flatten(2))


def _encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), 2)


CONVERTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "multihead": (_encoder, "layers.1.self_attn"),
    "sdpa": (lambda: nn.Sequential(Caller(), Caller()), "1"),
}
ADDED: dict[str, tuple[Callable[[Attention], Fix], dict[str, Any]]] = {
    "bias": (lambda one: bias_fix(one, -1.0, "why"), {"bias": -1.0}),
    "learnable bias": (lambda one: learnable_bias_fix(one, "why", -1.0), {"bias": "learnable", "bias_start": -1.0}),
    "qk norm": (lambda one: qk_norm_fix(one, "why"), {"qk_norm": True}),
    "layer scale": (lambda one: layer_scale_fix(one, 0.25, "why"), {"layer_scale": 0.25}),
}


@pytest.mark.parametrize("kind", ADDED)
@pytest.mark.parametrize("name", PATHS)
def test_a_transformers_model_with_the_fix_is_the_one_that_its_configuration_builds(name: str, kind: str) -> None:
    make, options = ADDED[kind]
    path = PATHS[name]
    inside = path if name == "t5" else path.partition(".")[2]
    model = CASES[name].build()
    before = logits(model, name)
    done = make(record(path)).apply(model)
    built = CASES[name].build(sigmoid_layers={inside: options})
    assert torch.equal(logits(model, name), logits(built, name))
    assert not torch.equal(logits(model, name), before)
    new = set(dict(built.named_parameters())) - set(dict(CASES[name].build().named_parameters()))
    assert set(done.parameters) == new
    assert all(model.get_parameter(one).requires_grad for one in new)


@pytest.mark.parametrize("kind", ADDED)
@pytest.mark.parametrize("name", CONVERTED)
def test_a_converted_model_with_the_fix_is_the_one_that_is_converted_with_it(name: str, kind: str) -> None:
    (build, path), (make, options) = CONVERTED[name], ADDED[kind]
    torch.manual_seed(0)
    model = build()
    torch.manual_seed(0)
    other = build()
    stabmon.convert(model, max_length=16)
    wanted = {"bias": -math.log(16)} | options
    start = wanted.pop("bias_start", None)
    stabmon.convert(other.get_submodule(path), max_length=round(math.e) if start else None, **wanted)
    stabmon.convert(other, max_length=16)
    if start:
        other.get_submodule(path).sigmoid_bias.data.fill_(start)
    done = make(record(path)).apply(model)
    assert torch.equal(model(X), other(X))
    assert set(done.parameters) == set(dict(model.named_parameters())) - set(dict(build().named_parameters()))


def test_a_fixed_model_is_saved_and_loaded_with_its_fixes_from_within_wrappers(tmp_path: Path) -> None:
    model = CASES["llama"].build()
    wrapped = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"module": model})})
    model.model.layers[1] = nn.ModuleDict({"_checkpoint_wrapped_module": model.model.layers[1]})
    there = record(PATHS["llama"])
    fix = together(bias_fix(there, -1.0, "why"), qk_norm_fix(there, "why", 0.5))
    done = fix.apply(wrapped)
    model.model.layers[1] = model.model.layers[1]["_checkpoint_wrapped_module"]
    names = ("sigmoid_query_norm.weight", "sigmoid_key_norm.weight")
    assert done.parameters == tuple(f"{PATHS['llama']}.{name}" for name in names)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="sigmoid").train()
    attention = loaded.get_submodule(PATHS["llama"])
    assert attention.sigmoid_query_norm.weight.tolist() == [0.5] * 8
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))


def test_norms_are_not_stacked_on_those_of_the_model() -> None:
    model = CASES["qwen3"].build()
    with pytest.raises(FixError, match="its queries and keys are normed already"):
        qk_norm_fix(record(PATHS["llama"]), "why").apply(model)


def test_qk_norm_of_the_whole_model_goes_into_every_layer_without_it() -> None:
    model = CASES["llama"].build()
    first, second = (f"model.layers.{layer}.self_attn" for layer in range(2))
    qk_norm_fix(record(first), "why", 0.5).apply(model)
    done = qk_norm_everywhere([record(second)], "why").apply(model)
    assert done.parameters == tuple(f"{second}.sigmoid_{side}_norm.weight" for side in ("query", "key"))
    assert model.get_parameter(f"{first}.sigmoid_key_norm.weight").tolist() == [0.5] * 8


def test_the_error_for_a_missing_module_names_attentions_of_other_libraries() -> None:
    with pytest.raises(FixError, match=r"nearest name is 'model\.layers\.[01]\.self_attn', its attentions are: model"):
        bias_fix(record("model.layers.7.self_attn"), -1.0, "why").apply(CASES["llama"].build())


@pytest.mark.parametrize("kind", ADDED)
def test_a_model_that_was_compiled_and_ran_follows_the_fix(kind: str) -> None:
    model = nn.Sequential(Caller(), Caller())
    stabmon.convert(model, max_length=16)
    compiled = torch.compile(model, backend="eager")
    before = compiled(X)
    ADDED[kind][0](record("1")).apply(compiled)
    assert torch.equal(compiled(X), model(X))
    assert not torch.equal(compiled(X), before)
