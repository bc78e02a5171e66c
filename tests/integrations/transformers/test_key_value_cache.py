"""Generation with the key/value cache that has room at its end."""

from typing import Any

import pytest
import torch

from stabmon.integrations.transformers import KeyValueCache
from stabmon.integrations.transformers import attention as door
from tests.transformers_models import CASES


def _model(name: str, implementation: str = "sigmoid") -> Any:
    torch.manual_seed(0)
    model = CASES[name].build(implementation).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    called = door.sigmoid_attention

    def noted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append({**options, "shape": tuple(key.shape), "queries": query.size(2)})
        return called(query, key, value, **options)

    monkeypatch.setattr(door, "sigmoid_attention", noted)
    return seen


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_greedy_generation_equals_full_recomputation_and_reads_the_cache_as_it_lies(
    name: str, calls: list[dict[str, Any]]
) -> None:
    model, ids = _model(name), CASES[name].batch(5)["input_ids"]
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 9, "do_sample": False}
    found = model.generate(ids, **given, cache=KeyValueCache(room=8))
    steps = [call for call in calls if call["queries"] == 1]
    assert {call["shape"][2] for call in steps} == {8, 16}  # it grows once
    assert all(call["cached"] for call in steps)
    assert torch.equal(found, model.generate(ids, **given, use_cache=False))


@pytest.mark.parametrize("how", ["left padding", "beams", "sdpa", "a prompt in two parts"])
def test_other_ways_of_generating_give_the_same_tokens(how: str) -> None:
    model, ids = _model("llama", "sdpa" if how == "sdpa" else "sigmoid"), CASES["llama"].batch(6)["input_ids"]
    mask = torch.ones_like(ids)
    if how == "left padding":
        mask[0, :3] = 0
    given = {"attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "num_beams": 3 if how == "beams" else 1}
    cache = KeyValueCache(room=4)
    if how == "a prompt in two parts":
        with torch.no_grad():
            model(input_ids=ids[:, :4], cache=cache)
    found = model.generate(ids, **given, cache=cache)
    assert torch.equal(found, model.generate(ids, **given))


def test_gradients_through_the_cache_are_those_without_it() -> None:
    model, ids = _model("llama"), CASES["llama"].batch(6)["input_ids"]
    cache = KeyValueCache()
    first = model(input_ids=ids[:, :4], cache=cache).logits
    both = torch.cat((first, model(input_ids=ids[:, 4:], cache=cache).logits), 1)
    parameters = list(model.parameters())
    found = torch.autograd.grad(both.square().mean(), parameters)
    expected = torch.autograd.grad(model(input_ids=ids, use_cache=False).logits.square().mean(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_room_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="room must be a whole number of at least 1, got 0"):
        KeyValueCache(room=0)
