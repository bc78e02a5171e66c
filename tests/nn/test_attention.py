import math

import pytest
import torch
from torch import nn

from stabmon.nn import SigmoidAttention, alibi_slopes, rotate

WIDTH, HEADS = 12, 3


def attention(**options: object) -> SigmoidAttention:
    torch.manual_seed(0)
    return SigmoidAttention(WIDTH, HEADS, **{"max_length": 16, **options}).double()


def tokens(length: int = 7) -> torch.Tensor:
    return torch.randn(2, length, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(module: SigmoidAttention, x: torch.Tensor) -> torch.Tensor:
    """The module's formula written out, head by head and query by query."""
    query_weight, key_weight, value_weight = module.qkv.weight.split(WIDTH)
    size = WIDTH // HEADS
    result = torch.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        query, key, value = (x @ weight[part].T for weight in (query_weight, key_weight, value_weight))
        query, key = module.query_norm(query), module.key_norm(key)
        if module.position == "rope":
            query, key = (each[:, 0] for each in rotate(query[:, None], key[:, None]))
        for i in range(x.shape[1]):
            for j in range(i + 1 if module.is_causal else x.shape[1]):
                logit = (query[:, i] * key[:, j]).sum(-1) / math.sqrt(size) + module.bias[head].double()
                if module.position == "alibi":
                    logit = logit - alibi_slopes(HEADS)[head].double() * abs(i - j)
                result[:, i, part] += torch.sigmoid(logit)[:, None] * value[:, j]
    return result @ module.out.weight.T


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("qk_norm", [False, True], ids=["plain", "qk-norm"])
@pytest.mark.parametrize("position", [None, "rope", "alibi"])
def test_the_output_equals_the_formula(position: str | None, qk_norm: bool, is_causal: bool) -> None:
    module = attention(position=position, qk_norm=qk_norm, is_causal=is_causal, bias=-0.7)
    torch.testing.assert_close(module(tokens()), by_hand(module, tokens()))


def test_a_causal_output_does_not_see_what_comes_after() -> None:
    module, x = attention(is_causal=True, position="rope"), tokens()
    changed = x.clone()
    changed[:, 4:] = 9.0
    torch.testing.assert_close(module(x)[:, :4], module(changed)[:, :4])


@pytest.mark.parametrize(
    ("bias", "value", "learns"),
    [("length", -math.log(16), False), ("learnable", -math.log(16), True), (-3.0, -3.0, False)],
)
def test_bias_is_a_tensor_per_head_that_learns_only_on_request(bias: float | str, value: float, learns: bool) -> None:
    module = SigmoidAttention(WIDTH, HEADS, bias=bias, max_length=16)
    assert module.bias.dtype == torch.float32
    assert module.bias.tolist() == pytest.approx([value] * HEADS)
    assert isinstance(module.bias, nn.Parameter) == learns
    assert "bias" in module.state_dict()


def test_a_learnable_bias_may_start_anywhere() -> None:
    module = SigmoidAttention(WIDTH, HEADS, bias="learnable", bias_start=-10.0, max_length=16)
    assert isinstance(module.bias, nn.Parameter)
    assert module.bias.tolist() == [-10.0] * HEADS


def test_a_learnable_bias_gets_the_gradient_of_the_formula() -> None:
    module = attention(bias="learnable", is_causal=True)
    module(tokens()).square().sum().backward()
    found, module.bias.grad = module.bias.grad, None
    by_hand(module, tokens()).square().sum().backward()
    torch.testing.assert_close(found, module.bias.grad)


def test_a_bias_of_minus_log_length_makes_rows_sum_to_about_one() -> None:
    module = SigmoidAttention(64, 4, max_length=256)
    query, key, _ = module.project(torch.randn(2, 256, 64, generator=torch.Generator().manual_seed(3)))
    logits = query @ key.transpose(-1, -2) / 4 + module.bias[:, None, None]
    assert logits.sigmoid().sum(-1).mean().item() == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("position", [None, "rope", "alibi"])
def test_autocast_works_with_every_position(position: str | None) -> None:
    module = attention(position=position, qk_norm=True).float()
    with torch.autocast("cpu", torch.bfloat16):
        low = module(tokens().float())
    assert low.dtype == torch.bfloat16
    assert (low.double() - module.double()(tokens())).abs().max() < 0.05


def test_compiles_into_one_graph() -> None:
    module = attention(position="rope", qk_norm=True, is_causal=True).float()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(tokens().float()), module(tokens().float()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10}, "multiple of heads, got width 10 and 3 heads"),
        ({"heads": 0}, "at least 1, got 12 and 0"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"position": "rope", "width": 9}, "must be even, got 9 / 3 = 3"),
        ({"position": "rotary"}, "'rope' or 'alibi', got 'rotary'"),
        ({"bias": "lenght"}, "'length' or 'learnable', got 'lenght'"),
        ({"bias_start": -3.0}, "bias_start is where bias 'learnable' starts, got bias 'length'"),
    ],
)
def test_impossible_arguments_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SigmoidAttention(**{"width": WIDTH, "heads": HEADS, "max_length": 16, **options})
