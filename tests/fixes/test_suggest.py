import subprocess
import sys

import pytest
import torch

import stabmon.nn  # noqa: F401  (the suggested code names it)
from stabmon.fixes import (
    bias_fix,
    clip_fix,
    hybrid_norm_fix,
    layer_scale_fix,
    learnable_bias_fix,
    learning_rate_fix,
    pre_norm_fix,
    qk_norm_fix,
    registry,
    together,
    warmup_fix,
)
from stabmon.fixes.change import Safety
from stabmon.fixes.kinds.layer_scale import layer_scale_gain
from stabmon.fixes.record import Fix
from stabmon.nn import Block, LayerScale, RMSNorm, SigmoidAttention
from stabmon.records import Attention

HEADS, HEAD_DIM = 2, 4
WIDTH = HEADS * HEAD_DIM


def attention(kind: str = "sigmoid") -> Attention:
    return Attention(
        layer="layers.1",
        module="layers.1.attention",
        block="layers.1",
        branch="layers.1.attention_scale",
        kind=kind,
        heads=HEADS,
        head_dim=HEAD_DIM,
    )


def model() -> torch.nn.Module:
    blocks = [Block(WIDTH, SigmoidAttention(WIDTH, HEADS, bias=0.0, max_length=8)) for _ in range(2)]
    return torch.nn.ModuleDict({"layers": torch.nn.ModuleList(blocks)})


def fixes(record: Attention) -> dict[str, Fix]:
    made = (
        bias_fix(record, -2.0794415, "rows sum to 4"),
        qk_norm_fix(record, "logits grow"),
        layer_scale_fix(record, 0.1, "the branch is 40 times the stream"),
        hybrid_norm_fix(record, "the output grows"),
    )
    return {fix.kind: fix for fix in made}


def run(fix: Fix, target: torch.nn.Module) -> Block:
    exec(fix.code, {"model": target, "torch": torch, "stabmon": sys.modules["stabmon"]})
    return target["layers"][1]


def test_the_suggested_code_sets_the_bias_of_every_head() -> None:
    block = run(fixes(attention())["bias"], model())
    assert block.attention.bias.tolist() == pytest.approx([-2.0794415] * HEADS, rel=1e-5)


def test_the_suggested_code_puts_norms_and_gain_in_their_places() -> None:
    target = model().double()
    for fix in fixes(attention()).values():
        block = run(fix, target)
    assert block.attention.query_norm.weight.shape == block.attention.key_norm.weight.shape == (HEAD_DIM,)
    assert isinstance(block.attention_scale, LayerScale)
    assert block.attention_scale.gain.tolist() == pytest.approx([0.1] * WIDTH)
    assert block.attention_post_norm.weight.dtype == torch.float64
    assert target["layers"][1](torch.ones(1, 3, WIDTH, dtype=torch.float64)).isfinite().all()


def test_the_learning_rate_code_multiplies_the_rate() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.4)
    exec(learning_rate_fix(0.5, "gradients grow").code, {"optimizer": optimizer})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)


def test_a_fix_survives_json() -> None:
    for fix in fixes(attention()).values():
        assert Fix.model_validate_json(fix.model_dump_json()) == fix


def test_a_fix_of_a_foreign_attention_is_to_be_made_by_hand() -> None:
    by_kind = fixes(attention("functional"))
    assert {fix.safety for fix in by_kind.values()} == {Safety.BY_HAND}
    assert "sigmoid_attention(query, key, value, bias=-2.07944)" in by_kind["bias"].code
    assert "self.query_norm(query)" in by_kind["qk_norm"].code
    assert "self.attention_scale(" in by_kind["layer_scale"].code
    assert "self.attention_post_norm(" in by_kind["hybrid_norm"].code


def test_the_code_for_softmax_says_that_it_has_no_bias() -> None:
    assert "no bias" in fixes(attention("softmax"))["bias"].code


def test_code_that_lacks_what_it_needs_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a value"):
        registry.find("bias").code(attention(), None)
    with pytest.raises(ValueError, match="changes an attention"):
        registry.find("bias").code(None, 1.0)


def test_suggesting_loads_no_torch() -> None:
    code = "import sys, stabmon.fixes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_combined_fix_has_the_code_of_all_parts_and_the_strictest_safety() -> None:
    first, other = bias_fix(attention(), -2.0, "one"), qk_norm_fix(attention(), "two")
    both = together(first, other)
    assert (both.kind, both.why, both.safety) == ("bias", "one; two", Safety.BEFORE_TRAINING)
    assert both.parts == (first, other)
    assert both.code == f"{first.code}\n{other.code}"
    assert both.diff == f"{first.diff}\n{other.diff}"
    assert str(both) == "bias = -2 in layers.1.attention, with qk norm in layers.1.attention"
    block = run(both, model())
    assert block.attention.bias.tolist() == [-2.0] * HEADS
    assert isinstance(block.attention.query_norm, RMSNorm)


def test_the_diff_of_a_bias_is_the_argument_where_the_attention_is_built() -> None:
    record = attention().model_copy(update={"bias": 0.0})
    assert bias_fix(record, -2.0, "why").diff == (
        "@@ where layers.1.attention is built @@\n"
        "-SigmoidAttention(8, 2, bias=0, ...)\n"
        "+SigmoidAttention(8, 2, bias=-2, ...)"
    )


def test_the_code_of_a_learnable_bias_and_of_pre_norm_does_what_apply_does() -> None:
    learnable = run(learnable_bias_fix(attention(), "why", -2.0), model())
    assert learnable.attention.bias.tolist() == [-2.0] * HEADS
    assert isinstance(learnable.attention.bias, torch.nn.Parameter)
    post = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([model()["layers"][0] for _ in range(2)])})
    post["layers"][1].norm = "post"
    assert run(pre_norm_fix(attention(), "why"), post).norm == "pre"


def test_the_code_of_the_training_runs() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.4)
    names = {"torch": torch, "optimizer": optimizer, "model": torch.nn.ParameterList([weight])}
    made, stepped = warmup_fix(10, "why").code.splitlines()
    exec(made, names)
    optimizer.step()
    exec(stepped, names)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.4 * 2 / 10)
    weight.grad = torch.full((2,), 10.0)
    exec(clip_fix(1.0, "why").code, names)
    assert weight.grad.norm() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(("depth", "gain"), [(1, 0.1), (18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6), (100, 1e-6)])
def test_layer_scale_starts_smaller_in_deeper_models(depth: int, gain: float) -> None:
    assert layer_scale_gain(depth) == gain
