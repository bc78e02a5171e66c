"""Fixes of the bias of a user's own module that calls sigmoid attention."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stabmon import preflight
from stabmon.errors import FixError
from stabmon.fixes import bias_fix, learnable_bias_fix, qk_norm_fix, together
from stabmon.fixes.record import Fix
from stabmon.kernels import sigmoid_attention
from stabmon.records import Attention

X = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))


class Mixer(nn.Module):
    bias: Any

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        mixed = sigmoid_attention(
            heads,
            heads,
            heads,
            bias=self.bias,
        )
        return x + mixed.transpose(1, 2).flatten(2)


class Parameter(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2))


class Buffer(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bias", torch.zeros(2))


class Plain(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.zeros(2)


class Number(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.bias = 0.0


class OfTheClass(Mixer):
    bias = 0.0


class SharedByTheClass(Mixer):
    bias = torch.zeros(2)


class Property(Mixer):
    @property
    def bias(self) -> Tensor:
        return torch.zeros(2)


class Computed(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.zeros(2)

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        return x + sigmoid_attention(heads, heads, heads, bias=2 * self.bias).transpose(1, 2).flatten(2)


class OfEachPair(Mixer):
    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.zeros(2, 16, 16)


def model(mixer: Callable[[], nn.Module]) -> tuple[nn.Module, Attention]:
    built = nn.Sequential(mixer(), mixer())
    return built, Attention(
        layer="1", module="1", block="1", branch=None, kind="functional", heads=2, head_dim=4, bias=None
    )


def biases(built: nn.Module) -> list[float]:
    return [row.bias for row in preflight(built, X).rows]


@pytest.mark.parametrize("mixer", [Parameter, Buffer, Plain, Number, OfTheClass])
def test_a_bias_fix_sets_the_attribute_that_the_class_passes(mixer: type[nn.Module]) -> None:
    built, attention = model(mixer)
    held, before = built[1].bias, type(built[1].bias)
    done = bias_fix(attention, -1.5, "why").apply(built)
    assert biases(built) == [0.0, -1.5]
    assert done.changed == "1.bias is -1.5 and was 0"
    assert type(built[1].bias) is before
    assert not isinstance(held, Tensor) or built[1].bias is held


@pytest.mark.parametrize("mixer", [Buffer, Plain])
@pytest.mark.parametrize("value", [None, -1.5])
def test_a_tensor_of_one_number_a_head_can_learn(mixer: type[nn.Module], value: float | None) -> None:
    built, attention = model(mixer)
    done = learnable_bias_fix(attention, "why", value).apply(built)
    assert done.parameters == ("1.bias",)
    built(X).sum().backward()
    assert built.get_parameter("1.bias").grad is not None
    assert biases(built) == [0.0, value or 0.0]


@pytest.mark.parametrize(
    ("mixer", "message"),
    [(Parameter, "1.bias learns already"), (Number, "1.bias is not a tensor of one number a head")],
)
def test_what_learns_already_or_is_a_number_is_refused(mixer: type[nn.Module], message: str) -> None:
    built, attention = model(mixer)
    with pytest.raises(FixError, match=message):
        learnable_bias_fix(attention, "why").apply(built)


@pytest.mark.parametrize("mixer", [Property, Computed, SharedByTheClass, OfEachPair])
def test_a_bias_that_is_not_plainly_the_modules_own_is_refused_with_code(mixer: type[nn.Module]) -> None:
    built, attention = model(mixer)
    fix = bias_fix(attention, -1.5, "why")
    with pytest.raises(FixError, match=r"stabmon cannot change it in place[\s\S]*bias=-1\.5"):
        fix.apply(built)


@pytest.mark.parametrize("mixer", [Parameter, Buffer, Plain, Number])
@pytest.mark.parametrize(
    "make", [lambda one: bias_fix(one, -1.5, "why"), lambda one: learnable_bias_fix(one, "why", -1.5)]
)
def test_a_refused_part_takes_the_others_back(mixer: type[nn.Module], make: Callable[[Attention], Fix]) -> None:
    built, attention = model(mixer)
    held, state = built[1].bias, list(built.state_dict())
    with pytest.raises(FixError):
        together(make(attention), qk_norm_fix(attention, "why")).apply(built)
    assert built[1].bias is held
    assert list(built.state_dict()) == state
    assert torch.equal(torch.as_tensor(held), torch.zeros(2 if isinstance(held, Tensor) else ()))
