import logging
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import stabmon
from stabmon.conversion import converted
from stabmon.errors import ModelError
from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention


class ByHand(nn.Module):
    """Attention that no kind knows."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return functional.softmax(q @ k.transpose(1, 2), -1) @ v


class ByHandAttention(ByHand):
    pass


class Fused(nn.Module):
    """Attention without weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.scaled_dot_product_attention(x, x, x)


def _blocks(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(32, SoftmaxAttention(32, 4, is_causal=True, **options)) for _ in range(2)))


def _sigmoid(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    kind = {"max_length": 16, "is_causal": True, **options}
    return nn.Sequential(*(Block(32, SigmoidAttention(32, 4, **kind)) for _ in range(2)))


X = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("bias", [None, "learnable", -1.5])
@pytest.mark.parametrize("position", [None, "rope", "alibi"])
def test_a_converted_model_of_ours_is_the_one_built_with_sigmoid(bias: Any, position: Any) -> None:
    model = _blocks(position=position)
    stabmon.convert(model, bias=bias, max_length=16)
    built = _sigmoid(position=position, bias="length" if bias is None else bias)
    assert torch.equal(model(X), built(X))
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in built.named_parameters()}


def test_undo_gives_the_same_bits_weights_and_structure_as_before() -> None:
    model = _blocks()
    before, keys, printed = model(X), list(model.state_dict()), str(model)
    report = stabmon.convert(model, bias="learnable", qk_norm=True, layer_scale=0.5, max_length=16)
    assert not torch.equal(model(X), before)
    assert set(keys) < set(model.state_dict())
    report.undo()
    assert torch.equal(model(X), before)
    assert (list(model.state_dict()), str(model)) == (keys, printed)
    report.undo()


def test_converted_undoes_itself_also_when_its_block_raises() -> None:
    model = _blocks()
    before = model(X)
    with converted(model, max_length=16) as report:
        assert len(report.converted) == 2
        assert not torch.equal(model(X), before)
    assert torch.equal(model(X), before)
    with pytest.raises(RuntimeError), converted(model, max_length=16):
        model(X[..., :1])
    assert torch.equal(model(X), before)


def test_states_saved_before_load_into_the_converted_model() -> None:
    model, state = _blocks(), _blocks().state_dict()
    stabmon.convert(model, qk_norm=True, max_length=16)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all("norm" in name or name.endswith("attention.bias") for name in missing)


def test_what_is_added_is_seen_by_an_optimizer() -> None:
    model = _blocks()
    before = {name for name, _ in model.named_parameters()}
    stabmon.convert(model, bias="learnable", layer_scale=0.1, max_length=16)
    added = {name for name, _ in model.named_parameters()} - before
    assert {name.partition("attention.")[2] for name in added} == {"bias", "sigmoid_layer_scale.gain"}
    model(X).sum().backward()
    assert all(dict(model.named_parameters())[name].grad.any() for name in added)


def test_what_is_kept_is_reported_and_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(_blocks(), ByHandAttention(), _sigmoid())
    with caplog.at_level(logging.WARNING, "stabmon"):
        report = stabmon.convert(model, max_length=16)
    assert [done.module for done in report.converted] == ["0.0.attention", "0.1.attention"]
    assert dict(report.kept) == {
        "1": "it computes softmax itself; call stabmon.kernels.sigmoid_attention there",
        "2.0.attention": "it is sigmoid attention already",
        "2.1.attention": "it is sigmoid attention already",
    }
    assert "0.0.attention: sigmoid attention, bias -2.77 (stabmon)" in str(report)
    assert [str(report)] == caplog.messages


def test_a_model_of_which_nothing_can_be_converted_is_refused_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.MultiheadAttention(32, 4))
    before = dict(vars(model[0]))
    with pytest.raises(ModelError, match=r"0: its longest training length is unknown; pass max_length or a number"):
        stabmon.convert(model)
    assert vars(model[0]) == before
    with pytest.raises(ModelError, match=r"no attention of a kind that stabmon.convert knows was found"):
        stabmon.convert(nn.Linear(2, 2))


@pytest.mark.parametrize(
    "make",
    [_blocks, lambda: nn.MultiheadAttention(32, 4), lambda: nn.Sequential(Fused())],
    ids=["stabmon", "multihead", "sdpa"],
)
def test_a_second_conversion_is_refused_and_undoing_the_first_is_enough(make: Any) -> None:
    model = make()
    classes = [type(module) for module in model.modules()]
    report = stabmon.convert(model, max_length=16)
    with pytest.raises(ModelError, match="it is sigmoid attention already"):
        stabmon.convert(model, max_length=16)
    report.undo()
    assert [type(module) for module in model.modules()] == classes


def test_a_module_without_weights_takes_a_number_and_no_parameters() -> None:
    model = nn.Sequential(Fused())
    model[0].num_heads = 2
    with pytest.raises(ModelError, match="it has no weights"):
        stabmon.convert(model, bias="learnable", max_length=16)
    assert stabmon.convert(model, max_length=16).converted[0].bias == "-2.77"


def test_an_error_midway_undoes_what_was_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    from stabmon.conversion import in_place

    def fails(work: Any) -> None:
        raise RuntimeError("midway")

    monkeypatch.setattr(in_place, "KINDS", (*in_place.KINDS, fails))
    model = _blocks()
    before = model(X)
    with pytest.raises(RuntimeError, match="midway"):
        stabmon.convert(model, max_length=16)
    assert torch.equal(model(X), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": "length"}, "bias must be None, a finite number or 'learnable', got 'length'"),
        ({"bias": math.nan}, "bias must be None, a finite number or 'learnable', got nan"),
        ({"bias": True}, "bias must be None, a finite number or 'learnable', got True"),
        ({"layer_scale": math.inf}, "layer_scale must be None or a finite number, got inf"),
        ({"max_length": 0}, "max_length must be a whole number of at least 1, got 0"),
        ({"max_length": 16.0}, "max_length must be a whole number of at least 1, got 16.0"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stabmon.convert(_blocks(), **options)
