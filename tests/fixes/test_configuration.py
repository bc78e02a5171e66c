"""Every kind of fix as a change to a run's configuration."""

import math

import pytest

from stabmon import config as configuration
from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes import (
    apply_to_config,
    bias_fix,
    clip_fix,
    config_diff,
    hybrid_norm_fix,
    layer_scale_fix,
    learnable_bias_fix,
    learning_rate_fix,
    length_fix,
    position_fix,
    pre_norm_fix,
    precision_fix,
    qk_norm_fix,
    together,
    warmup_fix,
)
from stabmon.fixes.record import Fix
from stabmon.records import Attention

ATTENTION = Attention(
    layer="layers.0",
    module="layers.0.attention",
    block="layers.0",
    branch="layers.0.attention_scale",
    kind="sigmoid",
    heads=2,
    head_dim=4,
    bias=0.0,
)


def run(**changes: object) -> RunConfig:
    start = configuration.load("naive")
    return configuration.override(start, {key.replace("__", "."): value for key, value in changes.items()})


CASES: dict[str, tuple[Fix, dict[str, object], str, object]] = {
    "bias": (bias_fix(ATTENTION, -5.5, "why"), {}, "model.bias", -5.5),
    "learnable_bias": (learnable_bias_fix(ATTENTION, "why", -5.5), {}, "model.bias", "learnable"),
    "qk_norm": (qk_norm_fix(ATTENTION, "why"), {}, "model.qk_norm", True),
    "layer_scale": (layer_scale_fix(ATTENTION, 1e-4, "why"), {}, "model.layer_scale", 1e-4),
    "hybrid_norm": (hybrid_norm_fix(ATTENTION, "why"), {}, "model.hybrid_norm", True),
    "pre_norm": (pre_norm_fix(ATTENTION, "why"), {"model__norm": "post"}, "model.norm", "pre"),
    "position": (position_fix(ATTENTION, "alibi", "why"), {}, "model.position", "alibi"),
    "learning_rate": (learning_rate_fix(0.5, "why"), {}, "training.learning_rate", 1e-3),
    "warmup": (warmup_fix(40, "why"), {}, "training.warmup", 40),
    "clip": (clip_fix(0.5, "why"), {}, "training.clip", 0.5),
    "precision": (
        precision_fix("bf16", "why"),
        {"training__precision": "fp16"},
        "training.precision",
        "bf16",
    ),
    "length": (length_fix(1024, "why"), {}, "model.context", 1024),
}


def value(config: RunConfig, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("alibi", -3.5, None)),
        ({"model__bias": "learnable"}, ("alibi", "learnable", -3.5)),
        ({"model__attention": "softmax"}, ("alibi", 0.0, None)),
    ],
)
def test_a_scheme_of_positions_brings_its_bias(changes: dict[str, object], expected: tuple[object, ...]) -> None:
    after = apply_to_config(position_fix(ATTENTION, "alibi", "why", -3.5), run(**changes)).model
    assert (after.position, after.bias, after.bias_start) == expected


@pytest.mark.parametrize("kind", CASES)
def test_a_kind_changes_its_own_key_of_a_configuration(kind: str) -> None:
    fix, changes, key, expected = CASES[kind]
    before = run(**changes)
    after = apply_to_config(fix, before)
    assert value(after, key) == expected
    others = {key, "model.bias_start"} | ({"model.bias"} if kind == "length" else set())
    for section in ("model", "training"):
        for name in type(getattr(before, section)).model_fields:
            dotted = f"{section}.{name}"
            assert dotted in others or value(after, dotted) == value(before, dotted)


@pytest.mark.parametrize("kind", [kind for kind in CASES if kind not in ("bias", "learning_rate")])
def test_what_is_there_already_is_refused(kind: str) -> None:
    fix, changes, _, _ = CASES[kind]
    fixed = apply_to_config(fix, run(**changes))
    if kind == "learnable_bias":
        assert apply_to_config(fix, fixed) == fixed
        return
    with pytest.raises(FixError, match=r"already|other than the present"):
        apply_to_config(fix, fixed)


def test_a_learnable_bias_goes_on_learning_from_the_new_value() -> None:
    config = run(model__bias="learnable")
    after = apply_to_config(bias_fix(ATTENTION, -5.5, "why"), config)
    assert (after.model.bias, after.model.bias_start) == ("learnable", -5.5)
    kept = apply_to_config(learnable_bias_fix(ATTENTION, "why"), run(model__bias=-3.0))
    assert kept.model.bias_start == -3.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model__bias": "length"}, ("length", None)),
        ({"model__bias": -6.0}, (pytest.approx(-6.0 - math.log(2)), None)),
        ({"model__bias": "learnable", "model__bias_start": -6.0}, ("learnable", pytest.approx(-6.0 - math.log(2)))),
    ],
)
def test_training_at_another_length_takes_the_bias_along(changes: dict[str, object], expected: object) -> None:
    before = run(**changes)
    after = apply_to_config(length_fix(2 * before.model.context, "why"), before).model
    assert (after.bias, after.bias_start) == expected


def test_the_other_parts_of_a_fix_are_applied_too() -> None:
    both = together(bias_fix(ATTENTION, -5.5, "one"), qk_norm_fix(ATTENTION, "two"))
    after = apply_to_config(both, run()).model
    assert (after.bias, after.qk_norm) == (-5.5, True)
    with pytest.raises(FixError, match="qk norm already"):
        apply_to_config(both, run(model__qk_norm=True))


def test_softmax_has_no_bias_to_set() -> None:
    with pytest.raises(FixError, match="softmax"):
        apply_to_config(bias_fix(ATTENTION, -5.5, "why"), run(model__attention="softmax"))


def test_a_value_that_no_configuration_takes_is_refused_with_the_key() -> None:
    with pytest.raises(FixError, match=r"training\.clip"):
        apply_to_config(clip_fix(-1.0, "why"), run(training__clip=None))


@pytest.mark.parametrize("there", [0.1, 0.5])
def test_a_clip_that_is_as_tight_is_not_loosened(there: float) -> None:
    with pytest.raises(FixError, match=f"clipped at {there} already, the fix asks for 0.5"):
        apply_to_config(clip_fix(0.5, "why"), run(training__clip=there))


def test_a_narrower_precision_is_refused() -> None:
    with pytest.raises(FixError, match="overflows later"):
        apply_to_config(precision_fix("bf16", "why"), run())


def test_the_difference_is_shown_as_a_diff_of_the_configuration() -> None:
    before = run()
    shown = config_diff(before, apply_to_config(bias_fix(ATTENTION, -5.5, "why"), before))
    assert "-  bias: 0.0\n+  bias: -5.5\n" in shown
    assert config_diff(before, before) == ""
