import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from stabmon.errors import ModelError
from tests.transformers_models import CASES, LENGTH


def _loaded(name: str, folder: Path, **options: Any) -> Any:
    return type(CASES[name].build()).from_pretrained(folder, **{"attn_implementation": "sigmoid", **options})


@pytest.mark.parametrize("name", CASES)
def test_the_configuration_takes_minus_the_log_of_the_longest_training_length(name: str) -> None:
    assert CASES[name].build().config.sigmoid_bias == -math.log(CASES[name].length)


def test_the_bias_stays_that_of_training_when_the_saved_model_is_stretched(tmp_path: Path) -> None:
    CASES["llama"].build().save_pretrained(tmp_path)
    model = _loaded("llama", tmp_path, max_position_embeddings=4 * LENGTH)
    assert model.config.sigmoid_bias == -math.log(LENGTH)


def test_a_model_that_says_no_length_is_refused_with_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"T5Config does not say its longest training length.*set config.sigmoid_bias"):
        CASES["t5"].build(sigmoid_bias=None)


def test_a_number_in_the_configuration_is_the_bias() -> None:
    case, batch = CASES["llama"], CASES["llama"].batch()
    plain = case.build("plain_sigmoid", plain_bias=-1.5)(**batch).logits
    torch.testing.assert_close(case.build(sigmoid_bias=-1.5)(**batch).logits, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_everything_that_is_added_learns_and_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    options = {
        "sigmoid_bias": "learnable",
        "sigmoid_bias_start": -2.0,
        "sigmoid_qk_norm": True,
        "sigmoid_layer_scale": 0.1,
    }
    model, batch = CASES[name].build(**options), CASES[name].batch()
    model(**batch).loss.backward()
    added = {path: value for path, value in model.named_parameters() if "sigmoid_" in path}
    assert {path.rpartition("sigmoid_")[2] for path in added} == {
        "bias",
        "query_norm.weight",
        "key_norm.weight",
        "layer_scale.gain",
    }
    assert all(value.grad.any() for value in added.values())
    for value in added.values():
        value.data += torch.randn_like(value)
    model.save_pretrained(tmp_path)
    loaded = _loaded(name, tmp_path).train()
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)


def test_softmax_weights_load_into_a_model_with_a_learnable_bias_that_starts_at_its_length(tmp_path: Path) -> None:
    CASES["llama"].build("sdpa").save_pretrained(tmp_path)
    config = CASES["llama"].configuration(sigmoid_bias="learnable", sigmoid_layer_scale=0.25, sigmoid_qk_norm=True)
    model = _loaded("llama", tmp_path, config=config)
    attention = model.model.layers[1].self_attn
    assert torch.equal(attention.sigmoid_bias, torch.full((4,), -math.log(LENGTH)))
    assert torch.equal(attention.sigmoid_layer_scale.gain, torch.full((32,), 0.25))
    assert torch.equal(attention.sigmoid_query_norm.weight, torch.ones(8))


def test_a_model_that_computes_softmax_itself_is_refused() -> None:
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.MPNetConfig(**options, attn_implementation="sigmoid")
    with pytest.raises(ModelError, match="MPNetModel computes softmax itself, whatever attn_implementation says"):
        transformers.MPNetForMaskedLM(config)


def test_a_learnable_bias_without_its_parameter_is_refused() -> None:
    model = CASES["llama"].build()
    model.config.sigmoid_bias = "learnable"
    with pytest.raises(ModelError, match="LlamaAttention has no parameter sigmoid_bias"):
        model(**CASES["llama"].batch())


def test_a_model_saved_with_sigmoid_says_so_when_it_is_loaded_with_softmax(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    CASES["llama"].build().save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "stabmon"):
        _loaded("llama", tmp_path, attn_implementation="sdpa")
    assert any("was saved with sigmoid attention, and runs with sdpa" in line for line in caplog.messages)
