from stabmon.evaluation.causes import changed_setting, settings_that_fix
from tests.evaluation.made import outcome

BAD = outcome("bad", [1.0], model__bias=0.0)


def test_one_setting_that_differs_is_the_cause() -> None:
    assert changed_setting(BAD, outcome("good", [1.0])) == "bias"
    assert changed_setting(BAD, outcome("good", [1.0], model__bias="learnable", model__bias_start=-3.0)) == "bias"
    assert changed_setting(BAD, outcome("good", [1.0], model__bias=0.0, model__norm="post")) == "pre_norm"


def test_several_settings_are_no_cause_and_neither_is_the_size() -> None:
    assert changed_setting(BAD, outcome("good", [1.0], model__qk_norm=True)) is None
    assert changed_setting(BAD, outcome("good", [1.0], model__bias=0.0, model__width=16)) is None
    assert changed_setting(BAD, BAD) is None


def test_replicates_differ_in_no_setting_that_is_a_cause() -> None:
    healthy = [outcome("good", [1.0], training__seed=1), outcome("seed", [1.0], model__bias=0.0, training__seed=1)]
    assert settings_that_fix(BAD, healthy) == ("bias",)
