import logging

import pytest
import torch
from torch import nn

from stabmon.errors import FixError
from stabmon.fixes import (
    bias_fix,
    clip_fix,
    hybrid_norm_fix,
    layer_scale_fix,
    learnable_bias_fix,
    learning_rate_fix,
    position_fix,
    pre_norm_fix,
    precision_fix,
    qk_norm_fix,
    together,
    warmup_fix,
)
from stabmon.fixes.kinds.qk_norm import qk_norm_everywhere
from stabmon.fixes.record import Fix
from stabmon.nn import Block, LayerScale, SigmoidAttention, SoftmaxAttention
from stabmon.records import Attention

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
    bias_fix(record(), -1.5, "why").apply(target)
    assert target["layers"][1].attention.bias.tolist() == [-1.5] * HEADS
    assert target["layers"][0].attention.bias.tolist() == [0.0] * HEADS


def test_a_learnable_bias_goes_on_learning_from_the_new_value() -> None:
    target = model(bias="learnable")
    attention = target["layers"][1].attention
    before = attention.bias
    bias_fix(record(), -1.5, "why").apply(target)
    assert attention.bias is before
    assert isinstance(attention.bias, nn.Parameter)
    assert attention.bias.requires_grad
    attention(torch.ones(1, 3, WIDTH)).sum().backward()
    assert attention.bias.grad is not None


def test_a_fix_that_travelled_as_json_does_the_same() -> None:
    target = model()
    Fix.model_validate_json(bias_fix(record(), -1.5, "why").model_dump_json()).apply(target)
    assert target["layers"][1].attention.bias.tolist() == [-1.5] * HEADS


def test_qk_norm_is_put_on_queries_and_keys() -> None:
    target = model().double().eval()
    qk_norm_fix(record(), "why").apply(target)
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
    layer_scale_fix(record(), 0.25, "why").apply(target)
    torch.testing.assert_close(block.attention_scale(block.attention(x)), 0.25 * branch)
    assert isinstance(block.feed_forward_scale, nn.Identity)


def test_hybrid_norm_makes_the_attention_branch_unit_size() -> None:
    target = model()
    block, x = target["layers"][1], torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    hybrid_norm_fix(record(), "why").apply(target)
    branch = block.attention_post_norm(block.attention(3 * x))
    torch.testing.assert_close(branch.square().mean(-1), torch.ones(2, 3), rtol=1e-3, atol=0)


def test_new_parameters_are_announced_for_the_optimizer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="stabmon"):
        layer_scale_fix(record(), 0.1, "why").apply(model())
        bias_fix(record(), 0.1, "why").apply(model())
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert "optimizer.add_param_group(" in message
    assert "layers.1.attention_scale.gain" in message


@pytest.mark.parametrize("make", [qk_norm_fix, hybrid_norm_fix])
def test_a_norm_is_not_stacked_on_another(make) -> None:
    target = model()
    make(record(), "why").apply(target)
    with pytest.raises(FixError, match=r"is there already: RMSNorm.*another fix"):
        make(record(), "why").apply(target)


def test_a_layer_scale_is_not_stacked_on_another() -> None:
    target = model(layer_scale=0.5)
    with pytest.raises(FixError, match=r"layers\.1\.attention_scale is there already: LayerScale"):
        layer_scale_fix(record(), 0.1, "why").apply(target)
    assert target["layers"][1].attention_scale.gain.tolist() == [0.5] * WIDTH


def test_wrappers_are_looked_through() -> None:
    inner = model()
    wrapped = nn.ModuleDict({"_orig_mod": nn.ModuleDict({"module": inner})})
    bias_fix(record(), -1.5, "why").apply(wrapped)
    layer_scale_fix(record(), 0.1, "why").apply(wrapped)
    assert inner["layers"][1].attention.bias.tolist() == [-1.5] * HEADS
    assert isinstance(inner["layers"][1].attention_scale, LayerScale)


def test_the_error_for_a_missing_module_names_the_nearest() -> None:
    with pytest.raises(
        FixError, match=r"no module 'layers.7.attention'; the nearest name is 'layers\.[01]\.attention'"
    ):
        bias_fix(record("layers.7"), 0.0, "why").apply(model())


def test_a_fix_for_foreign_attention_is_refused_with_code_to_paste() -> None:
    target = nn.ModuleDict({"attention": nn.MultiheadAttention(WIDTH, HEADS)})
    fix = qk_norm_fix(record("block", "softmax").model_copy(update={"module": "attention"}), "logits grow")
    with pytest.raises(FixError, match="MultiheadAttention; stabmon cannot change it in place") as caught:
        fix.apply(target)
    assert fix.code in str(caught.value)


def test_our_attention_in_a_foreign_block_gets_its_bias_but_no_layer_scale() -> None:
    target = nn.ModuleDict({"mixer": SigmoidAttention(WIDTH, HEADS, bias=0.0, max_length=4)})
    there = record().model_copy(update={"module": "mixer", "block": "", "branch": "mixer"})
    bias_fix(there, -2.0, "why").apply(target)
    assert target["mixer"].bias.tolist() == [-2.0] * HEADS
    with pytest.raises(FixError, match=r"is not in a stabmon.nn.Block[\s\S]*self.attention_scale\("):
        layer_scale_fix(there, 0.1, "why").apply(target)


def test_the_learning_rate_is_to_be_changed_by_the_user() -> None:
    with pytest.raises(FixError, match=r'not in the model.*\n.*\n    group\["lr"\] \*= 0.5'):
        learning_rate_fix(0.5, "why").apply(model())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bias_that_is_no_number_is_refused(value: float) -> None:
    target = model()
    with pytest.raises(FixError, match="finite value"):
        bias_fix(record(), value, "why").apply(target)
    assert target["layers"][1].attention.bias.tolist() == [0.0] * HEADS


def test_a_bias_that_did_not_learn_learns_from_where_it_was() -> None:
    target = model(bias=-1.5)
    x = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    before = target["layers"][1](x)
    done = learnable_bias_fix(record(), "why").apply(target)
    attention = target["layers"][1].attention
    assert torch.equal(target["layers"][1](x), before)
    assert done.parameters == ("layers.1.attention.bias",)
    assert target.get_parameter(done.parameters[0]) is attention.bias
    target["layers"][1](x).sum().backward()
    assert attention.bias.grad is not None
    assert "bias" in dict(attention.named_parameters())
    with pytest.raises(FixError, match="learns already"):
        learnable_bias_fix(record(), "why").apply(target)


def test_a_bias_fix_says_by_how_much_it_rescales_what_was_learnt() -> None:
    done = bias_fix(record(), -2.0, "why").apply(model())
    assert "multiplied by 0.135" in done.changed
    assert done.parameters == ()


@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_qk_norm_starts_with_the_gain_that_keeps_the_size_of_the_logits(scale: float) -> None:
    torch.manual_seed(0)
    width, heads = 256, 4
    block = Block(width, SigmoidAttention(width, heads, bias=-3.0, max_length=64))
    with torch.no_grad():
        block.attention_norm.weight.fill_(1.7)
        block.attention.qkv.weight.mul_(scale)
    target = nn.ModuleDict({"layers": nn.ModuleList([block])}).double()
    x = block.attention_norm(torch.randn(2, 64, width, dtype=torch.float64))
    before = logit_spread(block.attention, x)
    there = record("layers.0").model_copy(update={"heads": heads, "head_dim": width // heads})
    qk_norm_fix(there, "why").apply(target)
    assert logit_spread(block.attention, x) == pytest.approx(before, rel=0.05)


def logit_spread(attention: SigmoidAttention, x: torch.Tensor) -> float:
    query, key, _ = attention.project(x)
    return float((query @ key.mT / query.shape[-1] ** 0.5).detach().std())


def test_qk_norm_does_not_keep_logits_that_are_too_wide_already() -> None:
    target = model()
    with torch.no_grad():
        target["layers"][1].attention.qkv.weight.mul_(20)
    done = qk_norm_fix(record(), "why").apply(target)
    assert target["layers"][1].attention.key_norm.weight.tolist() == pytest.approx([2**0.5] * (WIDTH // HEADS))
    assert "too much for a bias to bear" in done.changed


def test_qk_norm_takes_the_gain_it_is_given() -> None:
    target = model()
    qk_norm_fix(record(), "why", 0.75).apply(target)
    assert target["layers"][1].attention.query_norm.weight.tolist() == [0.75] * (WIDTH // HEADS)


def test_pre_norm_moves_the_norm_before_the_branches() -> None:
    target = model(norm="post")
    other = model()
    pre_norm_fix(record(), "why").apply(target)
    x = torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(target["layers"][1](x), other["layers"][1](x))
    assert not torch.equal(target["layers"][0](x), other["layers"][0](x))
    with pytest.raises(FixError, match="already"):
        pre_norm_fix(record(), "why").apply(target)


@pytest.mark.parametrize("setting", ["rope", "alibi"])
def test_positions_are_those_of_a_model_built_with_them(setting: str) -> None:
    torch.manual_seed(0)
    built = SigmoidAttention(WIDTH, HEADS, bias=0.0, max_length=4, position=setting)
    torch.manual_seed(0)
    target = nn.ModuleDict({"mixer": SigmoidAttention(WIDTH, HEADS, bias=0.0, max_length=4)})
    there = record().model_copy(update={"module": "mixer", "block": "", "branch": "mixer"})
    position_fix(there, setting, "why").apply(target)
    x = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    assert torch.equal(target["mixer"](x), built(x))
    position_fix(there, "none", "why").apply(target)
    assert target["mixer"].position is None
    with pytest.raises(FixError, match="stabmon sets one of"):
        position_fix(there, "learned", "why").apply(target)


def test_positions_come_with_the_bias_that_fits_them() -> None:
    target = nn.ModuleDict({"mixer": SigmoidAttention(WIDTH, HEADS, bias=0.0, max_length=4)})
    there = record().model_copy(update={"module": "mixer", "block": "", "branch": "mixer"})
    fix = position_fix(there, "alibi", "why", -3.5)
    assert "the bias moved by -3.5" in fix.apply(target).changed
    assert target["mixer"].bias.tolist() == [-3.5] * HEADS
    assert "bias=-3.5" in fix.code
    assert 'position="alibi", bias=-3.5' in fix.diff


def test_softmax_of_ours_gets_norms_but_no_bias() -> None:
    block = Block(WIDTH, SoftmaxAttention(WIDTH, HEADS))
    target = nn.ModuleDict({"layers": nn.ModuleList([block])})
    there = record("layers.0", "softmax")
    qk_norm_fix(there, "why").apply(target)
    hybrid_norm_fix(there, "why").apply(target)
    assert isinstance(block.attention.key_norm, nn.RMSNorm)
    with pytest.raises(FixError, match="no bias to set"):
        bias_fix(there, 0.0, "why").apply(target)


@pytest.mark.parametrize("fix", [warmup_fix(10, "why"), clip_fix(1.0, "why"), precision_fix("bf16", "why")])
def test_a_fix_of_the_training_is_refused_with_code_to_paste(fix: Fix) -> None:
    with pytest.raises(FixError, match="not in the model") as caught:
        fix.apply(model())
    assert fix.code in str(caught.value)


@pytest.mark.parametrize("make", [bias_fix, position_fix, learnable_bias_fix])
def test_a_fix_of_which_a_part_is_refused_changes_nothing(make, caplog: pytest.LogCaptureFixture) -> None:
    target = model()
    qk_norm_fix(record(), "why").apply(target)
    caplog.clear()
    attention = target["layers"][1].attention
    before, position, names = attention.bias, attention.position, list(target.state_dict())
    given = {bias_fix: (-1.5, "why"), position_fix: ("alibi", "why", -1.5)}.get(make, ("why", -1.5))
    with pytest.raises(FixError, match="is there already"):
        together(make(record(), *given), qk_norm_fix(record(), "why")).apply(target)
    assert attention.bias is before
    assert (before.tolist(), attention.position) == ([0.0] * HEADS, position)
    assert list(target.state_dict()) == names
    assert not caplog.records


def test_qk_norm_of_the_whole_model_goes_into_every_layer_without_it() -> None:
    target = model()
    qk_norm_fix(record("layers.0"), "why").apply(target)
    there = target["layers"][0].attention.key_norm
    fix = qk_norm_everywhere([record("layers.1")], "why")
    assert str(fix) == "qk norm in every layer"
    fix.apply(target)
    assert target["layers"][0].attention.key_norm is there
    assert isinstance(target["layers"][1].attention.key_norm, nn.RMSNorm)
    with pytest.raises(FixError, match="is there already"):
        fix.apply(target)
