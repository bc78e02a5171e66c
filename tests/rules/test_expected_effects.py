"""The expected effects of a finding's fixes."""

import pytest

from stabmon.fixes import warmup_fix
from stabmon.rules.expected_effects import with_effects
from stabmon.rules.view import Run


def test_the_bias_that_a_finding_names_is_expected_to_make_rows_sum_to_one(written):
    facts = {"layers": 1, "heads": 4, "max_length": 1024, "is_causal": True, "bias": 0.0}
    series = {"row_mass": 256, "bias": 0.0, "logit_std": 1.0, "keys": 1024}
    finding, *_ = written({"model": facts, "series": series}).findings()
    assert finding.fix.effect.before == 256
    assert finding.fix.effect.after == pytest.approx(1, abs=0.01)
    norm = next(fix for fix in finding.fixes if fix.kind == "qk_norm")
    assert norm.effect is None  # it keeps what is there, so it has no expected effect


def test_the_expected_effect_of_a_lower_rate_is_the_rate_itself(written):
    series = {
        "learning_rate": 6e-3,
        "row_mass": [1.0] * 5 + [40.0] * 5,
        "logit_std": [1.0] * 5 + [6.0] * 5,
        "logit_max": [5.0] * 5 + [60.0] * 5,
    }
    found = written({"model": {"layers": 1, "max_length": 1024}, "steps": 10, "series": series}).findings()
    effects = {fix.kind: str(fix.effect) for fix in found[0].fixes}
    assert effects["learning_rate"] == "learning rate 0.006 -> 0.0018"
    assert effects["qk_norm"] == "logit max 60 -> 16"


def fix_at(written, rate, **model):
    facts = {"layers": 1, "heads": 4, "head_dim": 64, "max_length": 1024, "is_causal": True, "bias": 0.0, **model}
    config = {"training": {"learning_rate": rate}}
    series = {"row_mass": 256, "bias": 0.0, "keys": 1024}
    return written({"model": facts, "series": series, "config": config}).findings()[0].fix


def test_at_a_rate_that_outgrows_the_weights_qk_norm_comes_with_the_bias(written):
    hot = fix_at(written, 1.5e-2)
    assert [part.kind for part in hot.parts] == ["bias", "qk_norm"]
    assert "norm of 3.8" in hot.why
    assert hot.effect.metric == "row_mass"
    assert [part.kind for part in fix_at(written, 1.5e-3).parts] == ["bias"]
    assert [part.kind for part in fix_at(written, 1.5e-2, qk_norm=True).parts] == ["bias"]


def test_qk_norm_beside_a_fix_of_the_training_is_for_every_layer(written):
    facts = {"layers": 3, "heads": 4, "head_dim": 64, "max_length": 64, "is_causal": True, "bias": -4.16}
    facts = written({"model": facts, "config": {"training": {"learning_rate": 1.5e-2}}, "series": {"keys": 64}})
    run = Run(facts.info, facts.layout)
    (fix,) = with_effects([warmup_fix(12, "why")], run)
    assert str(fix) == "warmup = 12, with qk norm in every layer"
    assert fix.code.count("attention.key_norm = ") == 3
