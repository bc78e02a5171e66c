import copy
import logging
import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention as attend_by_name

import stabmon
from stabmon.errors import ModelError

BIAS = -math.log(16)


def _helper(*args: Any, **kwargs: Any) -> Tensor:
    return functional.scaled_dot_product_attention(*args, **kwargs)


class Direct(nn.Module):
    """Attention on tensors that are given, with the options of SDPA that are given."""

    num_heads, head_dim = 4, 8

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options, self.proj = options, nn.Linear(8, 8)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.proj(self.attend(query, key, value))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, **self.options)


class ByName(Direct):
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attend_by_name(query, key, value, **self.options)


class ThroughHelper(Direct):
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _helper(query, key, value, **self.options)


class Default(Direct):
    def attend(self, query: Tensor, key: Tensor, value: Tensor, function: Any = attend_by_name) -> Tensor:
        return function(query, key, value, **self.options)


class ClassAttribute(Direct):
    function = staticmethod(attend_by_name)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.function(query, key, value, **self.options)


class Table(Direct):
    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return _TABLE["softmax"](query, key, value, **self.options)


class Given(Direct):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.function = partial(attend_by_name, dropout_p=0.0)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.function(query, key, value, **self.options)


_TABLE = {"softmax": attend_by_name}


def _inputs(queries: int = 5, keys: int = 7, key_heads: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 4, queries, 8), torch.randn(2, key_heads, keys, 8), torch.randn(2, key_heads, keys, 8)


def _plain(module: Direct, query: Tensor, key: Tensor, value: Tensor, added: Tensor | float, scale: float) -> Tensor:
    groups = query.size(1) // key.size(1)
    key, value = key.repeat_interleave(groups, 1).double(), value.repeat_interleave(groups, 1).double()
    weights = (query.double() @ key.transpose(2, 3) * scale + BIAS + added).sigmoid()
    return weights @ value @ module.proj.weight.double().T + module.proj.bias.double()


_BOOL = torch.rand(2, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6
_FLOAT = torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(2))
_LATER = torch.full((5, 7), -torch.inf).triu(1)


@pytest.mark.parametrize("kind", [Direct, ByName, ThroughHelper, Default, ClassAttribute, Table, Given])
@pytest.mark.parametrize(
    ("options", "added", "scale"),
    [
        ({}, 0.0, 8**-0.5),
        ({"attn_mask": _BOOL}, torch.where(_BOOL, 0.0, -torch.inf), 8**-0.5),
        ({"attn_mask": _FLOAT}, _FLOAT, 8**-0.5),
        ({"is_causal": True}, _LATER, 8**-0.5),
        ({"scale": 0.2}, 0.0, 0.2),
        ({"enable_gqa": True}, 0.0, 8**-0.5),
        ({"scale": 0.3}, 0.0, 0.3),
    ],
    ids=["plain", "bool mask", "float mask", "causal", "scale", "gqa", "one key head"],
)
def test_every_option_of_sdpa_is_honoured(kind: Any, options: Any, added: Any, scale: float) -> None:
    module, inputs = kind(**options), _inputs(key_heads=2 if "enable_gqa" in options else 1 if scale == 0.3 else 4)
    stabmon.convert(module, max_length=16)
    torch.testing.assert_close(module(*inputs).double(), _plain(module, *inputs, added, scale), rtol=1e-4, atol=1e-5)


def test_inputs_without_heads_are_one_head() -> None:
    module, inputs = Direct(attn_mask=_FLOAT[:2]), [x[:, 0] for x in _inputs()]
    stabmon.convert(module, max_length=16)
    expected = _plain(module, *(x[:, None] for x in inputs), _FLOAT[:2, None], 8**-0.5)[:, 0]
    torch.testing.assert_close(module(*inputs).double(), expected, rtol=1e-4, atol=1e-5)


def test_calls_that_sigmoid_attention_cannot_answer_are_refused() -> None:
    module = Direct()
    stabmon.convert(module, max_length=16)
    with pytest.raises(ValueError, match="query must have 3 or 4 dimensions in a converted SigmoidDirect, got 5"):
        module(*(x[None] for x in _inputs()))
    module.options = {"attn_mask": _BOOL, "is_causal": True}
    with pytest.raises(ValueError, match="attn_mask must be None where is_causal is set"):
        module(*_inputs())


def test_only_the_modules_own_calls_are_swapped() -> None:
    module, inputs = Direct(), _inputs()
    stabmon.convert(module, max_length=16)
    module(*inputs)
    expected = torch.softmax(inputs[0] @ inputs[1].transpose(2, 3) * 8**-0.5, -1) @ inputs[2]
    torch.testing.assert_close(functional.scaled_dot_product_attention(*inputs), expected)


def test_dropout_of_weights_is_ignored_and_said(caplog: pytest.LogCaptureFixture) -> None:
    from stabmon.conversion import additions

    additions.log_ignored_dropout.cache_clear()
    module = Direct(dropout_p=0.5)
    stabmon.convert(module, max_length=16)
    with caplog.at_level(logging.WARNING, "stabmon"):
        assert torch.equal(module(*_inputs()), module(*_inputs()))
    assert len(caplog.messages) == 1


def test_a_forward_that_does_not_call_sdpa_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    class Either(Direct):
        def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            if query.size(2) > 1:
                return torch.softmax(query @ key.transpose(2, 3), -1) @ value
            return functional.scaled_dot_product_attention(query, key, value)

    module = Either()
    stabmon.convert(module, max_length=16)
    with caplog.at_level(logging.WARNING, "stabmon"):
        module(*_inputs(queries=1))
        assert not caplog.messages
        module(*_inputs())
    assert caplog.messages == [
        "the converted Either did not call SDPA in a forward pass: it may compute softmax by other means"
    ]


def test_a_module_that_says_that_it_does_not_call_sdpa_is_kept() -> None:
    model = nn.Sequential(Direct(), Direct())
    model[1].flash = False
    report = stabmon.convert(model, max_length=16)
    assert report.kept == (("1", "it computes softmax itself while its attribute flash is False"),)


def test_the_length_is_read_from_the_models_configuration() -> None:
    model = nn.Sequential(Direct())
    model.config = SimpleNamespace(block_size=16)  # nanoGPT's name
    report = stabmon.convert(model)
    assert report.converted[0].bias == "-2.77"


def test_a_converted_module_is_seen_as_sigmoid_attention_alone(tmp_path: Path) -> None:
    class Residual(nn.Module):
        num_heads = 4

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(32, 96), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).view(2, 16, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return x + self.proj(mixed.transpose(1, 2).flatten(2))

    def trained(watched: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model, x = nn.Sequential(Residual(), Residual()), torch.randn(2, 16, 32)
        stabmon.convert(model, max_length=16, bias="learnable")
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        run = stabmon.watch(model, optimizer, dir=tmp_path, console=False) if watched else nullcontext()
        with run:
            for _ in range(2):
                model(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return list(model.parameters())

    model = nn.Sequential(Residual(), Residual())
    stabmon.convert(model, max_length=32)
    found = stabmon.preflight(model, torch.randn(2, 16, 32))
    assert [(one.kind, one.bias) for one in found.map.attentions] == [("functional", -math.log(32))] * 2
    assert all(torch.equal(a, b) for a, b in zip(trained(True), trained(False), strict=True))


def test_additions_learn_and_the_class_is_put_back() -> None:
    module, inputs = Direct(), _inputs()
    before = module(*inputs)
    report = stabmon.convert(module, bias="learnable", qk_norm=True, layer_scale=0.1, max_length=16)
    module(*inputs).sum().backward()
    added = {name: value.grad for name, value in module.named_parameters() if name.startswith("sigmoid_")}
    assert len(added) == 4
    assert all(gradient.any() for gradient in added.values())
    report.undo()
    assert type(module) is Direct
    assert torch.equal(module(*inputs), before)


def test_a_module_that_does_not_say_its_heads_is_kept_whole_where_they_are_needed() -> None:
    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, *inputs: Tensor) -> Tensor:
            return functional.scaled_dot_product_attention(*inputs) * self.weight

    module, inputs = Silent(), _inputs()
    before = module(*inputs)
    with pytest.raises(ModelError, match="the model: it does not say its number of heads, which a learnable bias"):
        stabmon.convert(module, bias="learnable", max_length=16)
    with pytest.raises(ModelError, match="its output projection is unknown"):
        stabmon.convert(module, layer_scale=0.1, max_length=16)
    assert torch.equal(module(*inputs), before)
    assert list(module.state_dict()) == ["weight"]


def test_a_converted_module_compiles_in_one_graph_and_copies() -> None:
    module, inputs = Direct(is_causal=True), _inputs(keys=5)
    stabmon.convert(module, bias="learnable", max_length=16)
    expected = module(*inputs)
    torch.testing.assert_close(torch.compile(module, backend="aot_eager", fullgraph=True)(*inputs), expected)
    copied = copy.deepcopy(module)
    with torch.no_grad():
        module.sigmoid_bias.fill_(0.0)
    assert torch.equal(copied(*inputs), expected)
