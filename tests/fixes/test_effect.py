"""The expected effect of a fix, against the number that a real module has after it."""

import math

import pytest
import torch

from stabmon import preflight
from stabmon.fixes import (
    bias_fix,
    clip_fix,
    hybrid_norm_fix,
    layer_scale_fix,
    learning_rate_fix,
    precision_fix,
    qk_norm_fix,
    warmup_fix,
)
from stabmon.fixes.effect import expected, with_effect
from stabmon.fixes.record import Fix
from stabmon.nn import Block, SigmoidAttention
from stabmon.preflight_check.report import LayerReport
from stabmon.records import Attention

LENGTH, WIDTH = 128, 32


def model(bias: float) -> torch.nn.Module:
    torch.manual_seed(0)
    blocks = [Block(WIDTH, SigmoidAttention(WIDTH, 2, bias=bias, max_length=LENGTH)) for _ in range(2)]
    for block in blocks:
        torch.nn.init.normal_(block.attention.qkv.weight, std=1.2 * WIDTH**-0.5)
    return torch.nn.Sequential(*blocks)


def start(target: torch.nn.Module) -> tuple[LayerReport, Attention]:
    generator = torch.Generator().manual_seed(0)
    report = preflight(target, torch.randn(4, LENGTH, WIDTH, generator=generator))
    return report.rows[0], report.map.attentions[0]


def numbers(row: LayerReport) -> dict[str, float]:
    return row.model_dump(exclude={"layer"})


@pytest.mark.parametrize("wanted", [-3.0, -6.0, -9.0])
def test_the_row_mass_after_a_bias_fix_is_the_expected_one(wanted: float) -> None:
    target = model(0.0)
    row, attention = start(target)
    fix = bias_fix(attention, wanted, "why")
    effect = expected(fix, attention, numbers(row))
    assert effect is not None
    fix.apply(target)
    assert effect.before == row.row_mass
    assert effect.after == pytest.approx(start(target)[0].row_mass, rel=0.1)


def test_the_measured_best_bias_is_expected_to_make_rows_sum_to_one() -> None:
    row, attention = start(model(0.0))
    effect = expected(bias_fix(attention, row.best_bias, "why"), attention, numbers(row))
    assert str(effect).endswith("-> 1")


def test_the_branch_ratio_after_layer_scale_and_hybrid_norm_is_the_expected_one() -> None:
    for make in (lambda of: layer_scale_fix(of, 0.05, "why"), lambda of: hybrid_norm_fix(of, "why")):
        target = model(0.0)
        row, attention = start(target)
        fix = make(attention)
        effect = expected(fix, attention, numbers(row) | {"residual_in": 1.0})
        fix.apply(target)
        assert effect is not None
        assert effect.after == pytest.approx(start(target)[0].branch_ratio, rel=0.05)


def test_qk_norm_is_expected_to_reach_the_bound_where_logits_are_beyond_it_and_else_their_spread() -> None:
    attention = start(model(0.0))[1]
    fix = qk_norm_fix(attention, "why", 1.0)
    far = expected(fix, attention, {"logit_max": 60.0, "logit_std": 9.0})
    assert far is not None
    assert (far.metric, far.after) == ("logit_max", pytest.approx(math.sqrt(WIDTH / 2)))
    near = expected(fix, attention, {"logit_max": 3.0, "logit_std": 0.5})
    assert near is not None
    assert (near.metric, near.before, near.after) == ("logit_std", 0.5, 1.0)
    keeping = qk_norm_fix(attention, "why")
    assert expected(keeping, attention, {"logit_max": 1.0, "logit_std": 0.5}) is None


@pytest.mark.parametrize(
    ("fix", "measured", "words"),
    [
        (learning_rate_fix(0.3, "why"), {"learning_rate": 1e-2}, "learning rate 0.01 -> 0.003"),
        (warmup_fix(100, "why"), {"learning_rate": 1e-2}, "learning rate 0.01 -> 0.0001"),
        (clip_fix(1.0, "why"), {"total_gradient_norm": 40.0}, "total gradient norm 40 -> 1"),
        (precision_fix("bf16", "why"), {}, "largest number 65,504 -> 3.39e38"),
        (learning_rate_fix(0.3, "why"), {"learning_rate": math.nan}, "None"),
    ],
)
def test_fixes_of_the_training_have_an_expected_effect_too(fix: Fix, measured: dict[str, float], words: str) -> None:
    assert str(expected(fix, None, measured)) == words


def test_an_effect_that_is_there_is_kept() -> None:
    fix = with_effect(clip_fix(1.0, "why"), None, {"total_gradient_norm": 40.0})
    assert with_effect(fix, None, {"total_gradient_norm": 80.0}) == fix
    assert Fix.model_validate_json(fix.model_dump_json()) == fix
