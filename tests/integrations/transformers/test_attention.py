import logging
import math
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from tests.transformers_models import CASES, LENGTH, Case

CAUSAL = ["gpt2", "llama", "qwen3"]
GENERATING = [*CAUSAL, "bart", "t5"]


def _plain(case: Case, model: Any) -> Any:
    """Return the model in float64 with attention in plain PyTorch, and the weights of ``model``."""
    plain = case.build("plain_sigmoid", plain_bias=-math.log(case.length)).double()
    plain.load_state_dict(model.state_dict())
    return plain


def _double(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_equal_plain_sigmoid_attention_in_float64(name: str) -> None:
    case = CASES[name]
    model, batch = case.build(), case.batch()
    plain = _plain(case, model)
    ours, expected = model(**batch), plain(**_double(batch))
    torch.testing.assert_close(ours.logits.double(), expected.logits, rtol=1e-4, atol=1e-5)
    ours.loss.backward()
    expected.loss.backward()
    for (weight, parameter), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(parameter.grad.double(), other.grad, rtol=1e-3, atol=1e-5, msg=weight)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_as_near_to_float64_as_its_rounding_allows(name: str) -> None:
    case = CASES[name]
    model, batch = case.build().bfloat16(), case.batch()
    plain = _plain(case, model)
    halved = {key: x.bfloat16() if x.is_floating_point() else x for key, x in batch.items()}
    expected = plain(**_double(halved)).logits
    assert (model(**halved).logits.double() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_thirty_steps_lower_the_loss_by_a_third(name: str) -> None:
    model, batch = CASES[name].build(), CASES[name].batch()
    optimizer, losses = torch.optim.AdamW(model.parameters(), 3e-3), []
    for _ in range(30):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] * 2 / 3


def _padded(ids: Tensor, left: int, right: int) -> dict[str, Tensor]:
    """Return ``ids`` between padding, with the mask and the positions that a loader gives."""
    mask = torch.nn.functional.pad(torch.ones_like(ids), (left, right))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    return {
        "input_ids": torch.nn.functional.pad(ids, (left, right), value=0),
        "attention_mask": mask,
        "position_ids": positions,
    }


@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 3), (2, 1)], ids=["left", "right", "both"])
@pytest.mark.parametrize("name", [*CAUSAL, "bert"])
def test_padding_on_either_side_changes_nothing(name: str, left: int, right: int) -> None:
    model = CASES[name].build().eval()
    ids = CASES[name].batch(8)["input_ids"]
    padded = model(**_padded(ids, left, right)).logits[:, left : left + 8]
    torch.testing.assert_close(padded, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_padding_of_the_encoder_changes_nothing_in_the_decoder(name: str) -> None:
    model = CASES[name].build().eval()
    ids = CASES[name].batch(8)["input_ids"]
    padded = {key: value for key, value in _padded(ids, 0, 3).items() if key != "position_ids"}
    torch.testing.assert_close(
        model(**padded, decoder_input_ids=ids).logits,
        model(input_ids=ids, decoder_input_ids=ids).logits,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", CAUSAL)
def test_packed_sequences_equal_separate_ones(name: str) -> None:
    model = CASES[name].build().eval()
    ids = CASES[name].batch(10)["input_ids"][:1]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    separate = [model(input_ids=part).logits for part in ids.split([4, 6], 1)]
    torch.testing.assert_close(packed, torch.cat(separate, 1), rtol=1e-4, atol=1e-5)


def test_a_mask_made_by_the_user_is_added_to_the_logits() -> None:
    model = CASES["llama"].build().eval()
    ids = CASES["llama"].batch(8)["input_ids"]
    mask = torch.full((8, 8), torch.finfo(torch.float32).min).triu(1)[None, None]
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("name", GENERATING)
def test_greedy_generation_with_a_cache_equals_full_recomputation(name: str) -> None:
    model = CASES[name].build().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # else the most likely token hardly depends on the others
    given = _padded(CASES[name].batch(6)["input_ids"], *((2, 0) if name in CAUSAL else (0, 2)))
    given = {key: value for key, value in given.items() if key != "position_ids"}
    generated = model.generate(
        **given, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    tokens, logits = _recomputed(model, given, name in CAUSAL)
    assert torch.equal(generated.sequences, tokens)
    torch.testing.assert_close(torch.stack(generated.logits, 1), logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def _recomputed(model: Any, given: dict[str, Tensor], causal: bool) -> tuple[Tensor, Tensor]:
    """Return the tokens with their prompt, and the logits of each."""
    ids, mask, steps = given["input_ids"], given["attention_mask"], []
    decoded = ids if causal else ids.new_full((2, 1), model.config.decoder_start_token_id)
    for _ in range(6):
        if causal:
            positions = (mask.cumsum(1) - 1).clamp(min=0)
            logits = model(input_ids=decoded, attention_mask=mask, position_ids=positions, use_cache=False).logits
            mask = torch.cat((mask, mask.new_ones(2, 1)), 1)
        else:
            logits = model(**given, decoder_input_ids=decoded, use_cache=False).logits
        steps.append(logits[:, -1])
        decoded = torch.cat((decoded, logits[:, -1:].argmax(2)), 1)
    return decoded, torch.stack(steps, 1)


def test_a_cache_of_fixed_size_gives_the_same_tokens() -> None:
    model = CASES["llama"].build().eval()
    ids = CASES["llama"].batch(6)["input_ids"]
    dynamic, static = (
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, **kind)
        for kind in ({}, {"cache_implementation": "static"})
    )
    assert torch.equal(dynamic, static)


@pytest.mark.parametrize("name", CASES)
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    gradients = []
    for checkpointed in (False, True):
        model, batch = CASES[name].build(), CASES[name].batch()
        if checkpointed:
            model.activation_checkpointing_enable()
        model(**batch, **({} if name in ("bert", "vit") else {"use_cache": False})).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_a_causal_model_that_is_asked_to_see_both_ways_does() -> None:
    case = CASES["llama"]
    model = case.build().eval()
    plain = _plain(case, model).eval()
    model.config.is_causal = plain.config.is_causal = False
    for given in (_padded(case.batch(8)["input_ids"], 0, 0), _padded(case.batch(8)["input_ids"], 2, 1)):
        valid = given["attention_mask"].bool()
        ours, expected = model(**given).logits[valid], plain(**given).logits[valid]
        torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "bert", "vit"])
def test_a_forward_pass_compiles_in_one_graph(name: str) -> None:
    model, batch = CASES[name].build(), CASES[name].batch()
    del batch["labels"]  # GPT-2 logs something about its loss, which breaks the graph
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**batch).logits, model(**batch).logits)


def test_a_causal_batch_reaches_the_kernel_without_a_mask_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    from stabmon.integrations.transformers import attention

    seen = []
    called = attention.sigmoid_attention
    monkeypatch.setattr(attention, "sigmoid_attention", lambda *x, **kw: seen.append(kw) or called(*x, **kw))
    model, ids = CASES["qwen3"].build(), CASES["qwen3"].batch()["input_ids"]
    model(input_ids=ids, attention_mask=torch.ones_like(ids))
    model(**_padded(ids, 2, 0))
    assert all(kw["is_causal"] for kw in seen)
    masks = [None if kw["attn_mask"] is None else tuple(kw["attn_mask"].shape) for kw in seen]
    assert masks == [None, None, (2, 1, 1, LENGTH - 2), (2, 1, 1, LENGTH - 2)]
    assert [kw["window"] for kw in seen] == [None, 5, None, 5]


def test_dropout_of_weights_is_ignored_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    from stabmon.conversion import additions

    additions.log_ignored_dropout.cache_clear()
    model, batch = CASES["gpt2"].build(attn_pdrop=0.5), CASES["gpt2"].batch()
    with caplog.at_level(logging.WARNING, "stabmon"):
        first, second = model(**batch).logits, model(**batch).logits
    assert torch.equal(first, second)
    assert [record.getMessage() for record in caplog.records if "dropout" in record.getMessage()] == [
        "sigmoid attention has no dropout of weights: that of GPT2Attention is ignored"
    ]


def test_capped_logits_are_refused_by_name() -> None:
    config = transformers.Gemma2Config(
        **{**CASES["llama"].options, "head_dim": 8, "attn_implementation": "sigmoid"}, attn_logit_softcapping=50.0
    )
    with pytest.raises(ValueError, match=r"Gemma2Attention wants a cap of the logits \(softcap\)"):
        transformers.Gemma2ForCausalLM(config)(**CASES["llama"].batch())
