"""The suggested bias, and the fixes that are left out because the model has them."""

import math

import pytest

from stabmon.rules import Run, suggested_fixes


@pytest.fixture
def viewed(written):
    def make(series, layers=1, config=None, **facts):
        model = {"layers": layers, "heads": 4, "is_causal": True, **facts}
        run = written({"model": model, "series": series, "config": config or {}})
        view = Run(run.info, run.layout)
        view.add(0, run.rows[0])
        return view, run.info.model.attentions[0]

    return make


@pytest.mark.parametrize(
    ("series", "facts", "bias"),
    [
        ({"best_bias": -6.4321, "row_mass": 256}, {"max_length": 1024}, -6.43),
        ({"row_mass": 256, "bias": 0.0}, {"max_length": 1024}, -6.24),
        ({"row_mass": 256, "bias": 0.0, "logit_std": 1.0}, {"max_length": 1024}, -6.73),
        ({"row_mass": 128, "bias": 0.0, "keys": 512}, {}, -5.54),
        ({"row_mass": 116, "bias": -math.log(4096)}, {"max_length": 4096}, -13.07),
        ({"row_mass": 0.003, "bias": -math.log(2048)}, {"max_length": 2048, "position": "alibi"}, -1.64),
        ({"row_mass": 1.9, "bias": 0.0}, {"max_length": 2048, "position": "alibi"}, -1.03),
        ({"row_mass": 256}, {"max_length": 1024}, -6.93),
        ({"row_mass": 256}, {}, None),
        ({"row_mass": 256}, {"max_length": 2048, "position": "alibi"}, None),
        ({"best_bias": math.nan, "row_mass": 256}, {"max_length": 1024}, -6.93),
    ],
    ids=[
        "measured",
        "row-mass",
        "row-mass-and-logits",
        "keys",
        "length-is-set",
        "alibi-starved",
        "alibi",
        "length",
        "unknown",
        "alibi-unknown",
        "nan",
    ],
)
def test_the_suggested_bias_makes_rows_sum_to_one(series, facts, bias, viewed):
    assert suggested_fixes.best_bias(*viewed(series, **facts)) == (
        None if bias is None else pytest.approx(bias, abs=0.011)
    )


def test_the_median_head_decides_where_heads_differ(viewed):
    view, attention = viewed({"best_bias": -6.0, "layers.0:3/best_bias": -1.0}, max_length=1024)
    assert suggested_fixes.best_bias(view, attention) == -6.0


@pytest.mark.parametrize(
    ("facts", "kinds"),
    [
        ({"max_length": 1024}, ["qk_norm", "learning_rate"]),
        ({"max_length": 4096}, ["qk_norm", "hybrid_norm", "learning_rate"]),
        ({"max_length": 4096, "hybrid_norm": True}, ["qk_norm", "learning_rate"]),
        ({"max_length": 4096, "qk_norm": True, "hybrid_norm": True}, ["learning_rate"]),
        ({"max_length": 4096, "kind": "softmax"}, ["qk_norm", "learning_rate"]),
    ],
)
def test_growth_suggests_qk_norm_then_hybrid_norm_then_a_lower_rate(facts, kinds, viewed):
    assert [fix.kind for fix in suggested_fixes.for_growth(*viewed({"keys": 100}, **facts))] == kinds


def test_a_bias_that_rose_is_the_first_fix_for_saturated_weights(viewed):
    view, attention = viewed({"bias": -1.0, "saturated_fraction": 0.4}, max_length=1024, bias="learnable")
    assert [fix.kind for fix in suggested_fixes.for_saturated(view, attention)] == [
        "bias",
        "qk_norm",
        "learning_rate",
    ]


def test_a_layer_that_has_layer_scale_gets_no_second_one(viewed):
    assert suggested_fixes.for_large_branch(viewed({"keys": 100}, layer_scale=True)[1]) == ()


def test_a_fix_names_the_attention_module_and_the_code(viewed):
    (fix, *_) = suggested_fixes.for_large_start(*viewed({"row_mass": 256, "bias": 0.0}, max_length=1024, bias=0.0))
    assert fix.module == "layers.0.attention"
    assert "-6.24" in fix.code


@pytest.mark.parametrize(
    "fixes",
    [
        suggested_fixes.for_growth,
        suggested_fixes.for_saturated,
        lambda run, one: suggested_fixes.for_high_rate(run, one.layer),
    ],
    ids=["growth", "saturated", "high-rate"],
)
def test_growth_under_post_norm_suggests_pre_norm_first(fixes, viewed):
    assert fixes(*viewed({"residual_out": 1.0001}, layers=2))[0].kind == "pre_norm"
    assert "pre_norm" not in [fix.kind for fix in fixes(*viewed({"residual_out": 1.02}, layers=2))]


def test_growing_gradients_suggest_pre_norm_then_clipping_then_a_lower_rate(viewed):
    config = {"training": {"clip": None}}
    view, _ = viewed({"residual_out": 1.0}, layers=2, config=config)
    assert [fix.kind for fix in suggested_fixes.calmer(view, "why")] == ["pre_norm", "clip", "learning_rate"]
    view, _ = viewed({"residual_out": 0.7}, layers=2, config=config)
    assert [fix.kind for fix in suggested_fixes.calmer(view, "why")] == ["clip", "learning_rate"]


@pytest.mark.parametrize(("workload", "kinds"), [("vision", ["position", "bias"]), ("language", ["bias"])])
def test_alibi_is_dropped_in_images_alone_and_its_bias_with_it(workload, kinds, viewed):
    series = {"row_mass": 0.01, "bias": -9.0, "keys": 144}
    view, attention = viewed(series, config={"workload": workload}, position="alibi", max_length=144)
    first, *_ = fixes = suggested_fixes.for_starved(view, attention)
    assert [fix.kind for fix in fixes] == kinds
    if workload == "vision":
        assert (first.setting, first.value) == ("learned", pytest.approx(-math.log(144), abs=0.01))


LONGER = {"training": {"evaluate_length": 1024}}


@pytest.mark.parametrize(
    ("facts", "config", "kinds"),
    [
        ({"position": "rope"}, {"workload": "language", **LONGER}, ["length", "position", "bias"]),
        ({"position": "rope"}, LONGER, ["length", "position", "bias"]),
        ({"position": "rope"}, {"workload": "vision", **LONGER}, ["length", "bias"]),
        ({"position": "alibi"}, {"workload": "language", **LONGER}, ["length", "bias"]),
        ({}, {"workload": "vision", **LONGER}, ["length", "bias"]),
        ({"position": "rope"}, {}, ["bias"]),
    ],
    ids=["rope", "unknown-data", "vision", "alibi", "learned", "longer-in-training"],
)
def test_a_longer_evaluation_suggests_its_length_then_alibi_for_rope_then_the_bias(facts, config, kinds, viewed):
    view, attention = viewed({"bias": -5.55}, config=config, max_length=256, **facts)
    fixes = suggested_fixes.for_longer(view, attention, 1024.0)
    assert [fix.kind for fix in fixes] == kinds
    assert len(kinds) == 1 or fixes[0].value == 1024
    if "position" in kinds:
        assert (fixes[1].setting, fixes[1].value) == ("alibi", -3.48)


@pytest.mark.parametrize(("bias", "first"), [(-5.55, "length"), (0.0, "bias")])
def test_rows_too_heavy_at_a_longer_length_alone_are_a_matter_of_length(bias, first, viewed):
    series = {"bias": bias, "row_mass": 16.0, "keys": 1024, "logit_mean": 0.0, "logit_std": 1.0}
    view, attention = viewed(series, config=LONGER, max_length=256, position="rope")
    assert suggested_fixes.for_large_start(view, attention)[0].kind == first
