import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import stabmon
from stabmon.errors import ModelError
from tests.transformers_models import CASES, LENGTH

ADDED = {"bias": "learnable", "qk_norm": True, "layer_scale": 0.1}


def _convert(name: str, model: Any, **options: Any) -> Any:
    return stabmon.convert(model, **({"max_length": LENGTH} if name == "t5" else {}), **options)


@pytest.mark.parametrize("name", CASES)
def test_a_converted_model_is_the_one_built_with_sigmoid(name: str) -> None:
    options = {"sigmoid_bias": None} if name == "t5" else {}
    model, batch = CASES[name].build("sdpa", **options), CASES[name].batch()
    before, keys = model(**batch).logits, list(model.state_dict())
    report = _convert(name, model)
    assert not report.kept
    assert {done.bias for done in report.converted} == {f"{-math.log(CASES[name].length):.3g}"}
    assert torch.equal(model(**batch).logits, CASES[name].build()(**batch).logits)
    assert not torch.equal(model(**batch).logits, before)
    assert list(model.state_dict()) == keys


@pytest.mark.parametrize("options", [{}, ADDED], ids=["bias", "everything"])
@pytest.mark.parametrize("name", CASES)
def test_undo_gives_the_same_bits_weights_and_configuration_as_before(name: str, options: dict[str, Any]) -> None:
    case = CASES[name]
    model, batch = case.build("eager" if name == "bert" else "sdpa"), case.batch()
    before, keys, written = model(**batch).logits, list(model.state_dict()), model.config.to_dict()
    report = _convert(name, model, **options)
    assert not torch.equal(model(**batch).logits, before)
    report.undo()
    assert torch.equal(model(**batch).logits, before)
    assert (list(model.state_dict()), model.config.to_dict()) == (keys, written)
    assert model.config._attn_implementation == ("eager" if name == "bert" else "sdpa")


@pytest.mark.parametrize("name", CASES)
def test_a_converted_model_is_saved_and_loaded_with_what_was_added(name: str, tmp_path: Path) -> None:
    model, batch = CASES[name].build("sdpa"), CASES[name].batch()
    _convert(name, model, **ADDED)
    for path, value in model.named_parameters():
        if "sigmoid_" in path:
            nn.init.normal_(value)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, attn_implementation="sigmoid").train()
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


def test_a_copy_of_a_converted_model_has_its_own_parameters() -> None:
    model, batch = CASES["llama"].build("sdpa"), CASES["llama"].batch()
    _convert("llama", model, **ADDED)
    copied, expected = copy.deepcopy(model), model(**batch).logits
    for value in model.parameters():
        nn.init.zeros_(value)
    assert torch.equal(copied(**batch).logits, expected)


def test_a_model_within_another_module_is_converted_and_the_rest_too() -> None:
    model = nn.ModuleDict({"text": CASES["llama"].build("sdpa"), "mixed": nn.MultiheadAttention(32, 4)})
    report = stabmon.convert(model, max_length=LENGTH)
    assert [(done.module, done.kind) for done in report.converted] == [
        ("text.model.layers.0.self_attn", "transformers"),
        ("text.model.layers.1.self_attn", "transformers"),
        ("mixed", "nn.MultiheadAttention"),
    ]


def test_a_model_that_needs_a_length_says_so_and_is_left_as_it_was() -> None:
    model, batch = CASES["t5"].build("sdpa", sigmoid_bias=None), CASES["t5"].batch()
    before = model(**batch).logits
    with pytest.raises(ModelError, match="its longest training length is unknown; pass max_length"):
        stabmon.convert(model)
    assert torch.equal(model(**batch).logits, before)
    assert model.config._attn_implementation == "sdpa"


def test_capped_logits_are_kept_with_the_reason() -> None:
    config = transformers.Gemma2Config(**{**CASES["llama"].options, "head_dim": 8}, attn_logit_softcapping=50.0)
    with pytest.raises(ModelError, match="its logits are capped"):
        stabmon.convert(transformers.Gemma2ForCausalLM(config))


def test_a_model_without_attention_functions_is_converted_where_it_calls_sdpa() -> None:
    config = transformers.FalconConfig(
        vocab_size=32, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH
    )
    model = transformers.FalconForCausalLM(config)
    assert not model._can_set_attn_implementation()
    report = stabmon.convert(model)
    assert {done.kind for done in report.converted} == {"scaled_dot_product_attention"}
    assert model(input_ids=torch.arange(3, 11)[None]).logits.isfinite().all()


def test_a_model_that_computes_softmax_itself_is_refused_with_the_module_that_does() -> None:
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    model = transformers.MPNetForMaskedLM(transformers.MPNetConfig(**options))
    with pytest.raises(ModelError, match=r"mpnet.encoder.layer.0.attention.attn: it computes softmax itself"):
        stabmon.convert(model)
