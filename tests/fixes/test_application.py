import logging

import pytest
import torch
from torch import nn

from stabmon.errors import FixError
from stabmon.fixes import suggest
from stabmon.nn import Block, LayerScale, SigmoidAttention
from stabmon.records import Attention, Fix

WIDTH, HEADS = 8, 2


def model(bias: float | str = 0.0, **options: object) -> nn.Module:
    torch.manual_seed(0)
    blocks = [Block(WIDTH, SigmoidAttention(WIDTH, HEADS, bias=bias, max_length=4), **options) for _ in range(2)]
    return nn.ModuleDict({"layers": nn.ModuleList(blocks)})


def record(name: str = "layers.1", kind: str = "sigmoid") -> Attention:
    return Attention(
        layer=name,
        module=f"{name}.attention",
        block=name,
        branch=f"{name}.attention_scale",
        kind=kind,
        heads=HEADS,
        head_dim=WIDTH // HEADS,
    )


def test_a_bias_fix_fills_every_head_of_its_layer_alone() -> None:
    target = model()
    suggest.bias_fix(record(), -1.5, "why").apply(target)
    assert target["layers"][1].attention.bias.tolist() == [-1.5] * HEADS
    assert target["layers"][0].attention.bias.tolist() == [0.0] * HEADS


def test_a_learnable_bias_goes_on_learning_from_the_new_value() -> None:
    target = model(bias="learnable")
    attention = target["layers"][1].attention
    before = attention.bias
    suggest.bias_fix(record(), -1.5, "why").apply(target)
    assert attention.bias is before
    assert isinstance(attention.bias, nn.Parameter)
    assert attention.bias.requires_grad
    attention(torch.ones(1, 3, WIDTH)).sum().backward()
    assert attention.bias.grad is not None


def test_a_fix_that_travelled_as_json_does_the_same() -> None:
    target = model()
    Fix.model_validate_json(suggest.bias_fix(record(), -1.5, "why").model_dump_json()).apply(target)
    assert target["layers"][1].attention.bias.tolist() == [-1.5] * HEADS


def test_qk_norm_is_put_on_queries_and_keys() -> None:
    target = model().double().eval()
    suggest.qk_norm_fix(record(), "why").apply(target)
    attention = target["layers"][1].attention
    for norm in (attention.query_norm, attention.key_norm):
        assert isinstance(norm, nn.RMSNorm)
        assert norm.weight.shape == (WIDTH // HEADS,)
        assert norm.weight.dtype == torch.float64
        assert not norm.training
    assert torch.isfinite(attention(torch.ones(1, 3, WIDTH, dtype=torch.float64))).all()


def test_layer_scale_shrinks_the_attention_branch_by_its_value() -> None:
    target = model()
    block, x = target["layers"][1], torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    branch = block.attention_scale(block.attention(x))
    suggest.layer_scale_fix(record(), 0.25, "why").apply(target)
    torch.testing.assert_close(block.attention_scale(block.attention(x)), 0.25 * branch)
    assert isinstance(block.feed_forward_scale, nn.Identity)


def test_hybrid_norm_makes_the_attention_branch_unit_size() -> None:
    target = model()
    block, x = target["layers"][1], torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    suggest.hybrid_norm_fix(record(), "why").apply(target)
    branch = block.attention_post_norm(block.attention(3 * x))
    torch.testing.assert_close(branch.square().mean(-1), torch.ones(2, 3), rtol=1e-3, atol=0)


def test_new_parameters_are_announced_for_the_optimizer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="stabmon"):
        suggest.layer_scale_fix(record(), 0.1, "why").apply(model())
        suggest.bias_fix(record(), 0.1, "why").apply(model())
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert "optimizer.add_param_group(" in message
    assert "layers.1.attention_scale.gain" in message


@pytest.mark.parametrize("make", [suggest.qk_norm_fix, suggest.hybrid_norm_fix])
def test_a_norm_is_not_stacked_on_another(make) -> None:
    target = model()
    make(record(), "why").apply(target)
    with pytest.raises(FixError, match=r"is there already: RMSNorm.*another fix"):
        make(record(), "why").apply(target)


def test_a_layer_scale_is_not_stacked_on_another() -> None:
    target = model(layer_scale=0.5)
    with pytest.raises(FixError, match=r"layers\.1\.attention_scale is there already: LayerScale"):
        suggest.layer_scale_fix(record(), 0.1, "why").apply(target)
    assert target["layers"][1].attention_scale.gain.tolist() == [0.5] * WIDTH


def test_wrappers_are_looked_through() -> None:
    inner = model()
    wrapped = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"module": inner})})
    suggest.bias_fix(record(), -1.5, "why").apply(wrapped)
    suggest.layer_scale_fix(record(), 0.1, "why").apply(wrapped)
    assert inner["layers"][1].attention.bias.tolist() == [-1.5] * HEADS
    assert isinstance(inner["layers"][1].attention_scale, LayerScale)


def test_a_missing_module_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(
        FixError, match=r"no module 'layers.7.attention'; the nearest name is 'layers\.[01]\.attention'"
    ):
        suggest.bias_fix(record("layers.7"), 0.0, "why").apply(model())


def test_a_foreign_attention_is_answered_with_code() -> None:
    target = nn.ModuleDict({"attention": nn.MultiheadAttention(WIDTH, HEADS)})
    fix = suggest.qk_norm_fix(record("block", "softmax").model_copy(update={"module": "attention"}), "logits grow")
    with pytest.raises(FixError, match="MultiheadAttention; stabmon changes only") as caught:
        fix.apply(target)
    assert fix.code in str(caught.value)


def test_our_attention_in_a_foreign_block_gets_its_bias_but_no_layer_scale() -> None:
    target = nn.ModuleDict({"mixer": SigmoidAttention(WIDTH, HEADS, bias=0.0, max_length=4)})
    there = record().model_copy(update={"module": "mixer", "block": "", "branch": "mixer"})
    suggest.bias_fix(there, -2.0, "why").apply(target)
    assert target["mixer"].bias.tolist() == [-2.0] * HEADS
    with pytest.raises(FixError, match=r"does not stand in a stabmon.nn.Block[\s\S]*self.attention_scale\("):
        suggest.layer_scale_fix(there, 0.1, "why").apply(target)


def test_the_learning_rate_is_to_be_changed_by_the_user() -> None:
    with pytest.raises(FixError, match=r'not in the model.*\n.*\n    group\["lr"\] \*= 0.5'):
        suggest.learning_rate_fix(0.5, "why").apply(model())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bias_that_is_no_number_is_refused(value: float) -> None:
    target = model()
    with pytest.raises(FixError, match="finite value"):
        suggest.bias_fix(record(), value, "why").apply(target)
    assert target["layers"][1].attention.bias.tolist() == [0.0] * HEADS
