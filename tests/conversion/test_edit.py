import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stabmon
from stabmon.conversion import edit
from stabmon.errors import ModelError
from tests.transformers_models import CASES, LENGTH

X = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
EDITS: dict[str, Callable[[Any, str, ExitStack], None]] = {
    "bias": lambda model, path, undo: edit.set_bias(model, path, -1.0, undo),
    "learnable bias": lambda model, path, undo: edit.learn_bias(model, path, -1.0, undo),
    "qk norm": lambda model, path, undo: edit.add_qk_norm(model, path, 0.5, undo),
    "layer scale": lambda model, path, undo: edit.add_layer_scale(model, path, 0.5, undo),
}


def _multihead() -> tuple[nn.Module, str, Callable[[nn.Module], torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True), 2)
    stabmon.convert(model, max_length=16)
    return model, "layers.1.self_attn", lambda model: model(X)


def _of_transformers(name: str, path: str) -> tuple[nn.Module, str, Callable[[nn.Module], torch.Tensor]]:
    batch = CASES[name].batch()
    return CASES[name].build(), path, lambda model: model(**batch).logits


MODELS = {
    "multihead": _multihead,
    "llama": lambda: _of_transformers("llama", "model.layers.1.self_attn"),
    "bert": lambda: _of_transformers("bert", "bert.encoder.layer.1.attention.self"),
    "t5": lambda: _of_transformers("t5", "decoder.block.1.layer.0.SelfAttention"),
}


@pytest.mark.parametrize("change", EDITS)
@pytest.mark.parametrize("kind", MODELS)
def test_one_attention_changes_and_the_change_can_be_taken_back(kind: str, change: str) -> None:
    model, path, output = MODELS[kind]()
    before, keys = output(model), list(model.state_dict())
    with ExitStack() as undo:
        EDITS[change](model, path, undo)
        assert not torch.equal(output(model), before)
        changed = {name for name in model.state_dict() if name not in keys}
        assert all(name.startswith(f"{path}.sigmoid_") for name in changed)
        assert bool(changed) is (change != "bias")
    assert torch.equal(output(model), before)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("kind", ["llama", "bert", "t5"])
def test_a_changed_model_of_transformers_is_saved_and_loaded_with_its_changes(kind: str, tmp_path: Path) -> None:
    model, path, output = MODELS[kind]()
    other = path.replace("1", "0", 1)
    for change, of in (("learnable bias", path), ("qk norm", path), ("layer scale", other), ("bias", other)):
        EDITS[change](model, of, ExitStack())
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="sigmoid").train()
    assert torch.equal(output(loaded), output(model))
    assert edit.present_bias(loaded.get_submodule(other)) == -1.0


def test_a_model_within_another_module_and_the_base_of_a_saved_one_know_the_changes(tmp_path: Path) -> None:
    whole = nn.ModuleDict({"text": CASES["llama"].build()})
    edit.set_bias(whole, "text.model.layers.1.self_attn", -1.0, ExitStack())
    whole["text"].save_pretrained(tmp_path)
    base = type(whole["text"].model).from_pretrained(tmp_path, attn_implementation="sigmoid")
    assert [edit.present_bias(layer.self_attn) for layer in base.layers] == [-math.log(LENGTH), -1.0]


def test_weights_without_the_additions_load_with_their_first_values(tmp_path: Path) -> None:
    CASES["llama"].build("sdpa").save_pretrained(tmp_path)
    config = CASES["llama"].configuration(
        sigmoid_layers={"layers.1.self_attn": {"bias": "learnable", "bias_start": -1.0, "layer_scale": 0.5}}
    )
    model = type(CASES["llama"].build()).from_pretrained(tmp_path, config=config, attn_implementation="sigmoid")
    first, second = (layer.self_attn for layer in model.model.layers)
    assert edit.present_bias(first) == -math.log(LENGTH)
    assert torch.equal(second.sigmoid_bias, torch.full((4,), -1.0))
    assert torch.equal(second.sigmoid_layer_scale.gain, torch.full((32,), 0.5))


def test_a_bias_that_learns_goes_on_from_the_new_value() -> None:
    model = CASES["llama"].build(sigmoid_bias="learnable")
    path = "model.layers.0.self_attn"
    parameter = model.get_parameter(f"{path}.sigmoid_bias")
    with ExitStack() as undo:
        edit.set_bias(model, path, -1.0, undo)
        assert torch.equal(model.get_parameter(f"{path}.sigmoid_bias"), torch.full((4,), -1.0))
    assert model.get_parameter(f"{path}.sigmoid_bias") is parameter
    assert torch.equal(parameter, torch.full((4,), -math.log(LENGTH)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("learnable bias", "its bias learns already"),
        ("qk norm", "its queries and keys are normed already"),
        ("layer scale", "it has a LayerScale already"),
    ],
)
@pytest.mark.parametrize("kind", ["multihead", "llama"])
def test_a_second_addition_is_refused(kind: str, change: str, message: str) -> None:
    model, path, _ = MODELS[kind]()
    EDITS[change](model, path, ExitStack())
    with pytest.raises(ModelError, match=message):
        EDITS[change](model, path, ExitStack())


def test_only_sigmoid_attention_that_is_not_stabmons_own_is_editable() -> None:
    softmax = CASES["llama"].build("sdpa")
    assert not any(edit.is_editable(module) for module in (*softmax.modules(), nn.MultiheadAttention(32, 4)))
    for make in MODELS.values():
        model, path, _ = make()
        assert edit.is_editable(model.get_submodule(path))
        assert not edit.is_editable(model)
