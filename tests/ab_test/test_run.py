"""A trial on a configured run: stabmon's own training on both sides."""

import pytest

from stabmon import config as configuration
from stabmon.ab_test import trial_of_run
from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.findings.digest import first_fixes
from stabmon.fixes import learning_rate_fix, registry
from stabmon.preflight_check import preflight
from stabmon.preflight_check.fixes_of_kind import fixes_of_kind
from stabmon.preflight_check.report import PreflightReport
from stabmon.workloads import training

TINY = {
    "model.layers": 2,
    "model.width": 16,
    "model.heads": 2,
    "model.context": 64,
    "training.batch": 2,
    "training.steps": 20,
}


def tiny(**changes: object) -> RunConfig:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return configuration.override(configuration.load("naive"), TINY | given)


def report_of(config: RunConfig) -> PreflightReport:
    inputs, _ = next(iter(training.batches(config)))
    return preflight(training.build(config), inputs)


def test_the_side_without_the_fix_is_the_configured_training() -> None:
    config = tiny()
    report = trial_of_run(config, fixes_of_kind("qk_norm", config, report_of(config)), steps=3, seeds=1)
    plain = training.train(configuration.override(config, {"training.steps": 3}), watch=False)
    assert list(report.without.losses[0]) == plain.losses
    assert "+  qk_norm: true" in report.diff
    assert {one.module for one in report.applied} == {"layers.0.attention", "layers.1.attention"}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("learning_rate", {}),
        ("warmup", {"training__warmup": 1}),
        ("clip", {"training__clip": None}),
        ("precision", {"training__precision": "bf16"}),
        ("learnable_bias", {}),
        ("hybrid_norm", {}),
        ("pre_norm", {"model__norm": "post"}),
        ("position", {}),
    ],
)
def test_every_kind_can_be_tried(kind: str, changes: dict[str, object]) -> None:
    config = tiny(**changes)
    report = trial_of_run(config, fixes_of_kind(kind, config, report_of(config)), steps=3, seeds=1)
    assert report.with_fix.losses != report.without.losses
    assert report.diff
    if registry.find(kind).of_training and kind != "precision":
        assert report.with_fix.losses[0][0] == report.without.losses[0][0]


def test_a_half_trained_model_is_the_start_of_both_sides() -> None:
    config = tiny()
    report = trial_of_run(config, [learning_rate_fix(0.5, "why")], steps=2, seeds=1, after=4)
    assert report.without.losses[0][0] == report.with_fix.losses[0][0]
    assert report.without.losses[0][0] < trial_of_run(config, report.fixes, steps=2, seeds=1).without.losses[0][0]


def test_what_the_run_has_already_is_refused_before_anything_is_trained() -> None:
    config = tiny(model__qk_norm=True)
    with pytest.raises(FixError, match="qk norm already"):
        trial_of_run(config, fixes_of_kind("qk_norm", config, report_of(config)))
    with pytest.raises(FixError, match="nothing is wider"):
        fixes_of_kind("precision", config, report_of(config))


def test_the_first_fixes_are_one_a_layer_and_expect_a_number() -> None:
    report = report_of(tiny())
    fixes = report.fixes
    assert [fix.module for fix in fixes] == ["layers.0.attention", "layers.1.attention"]
    assert {fix.kind for fix in fixes} == {"bias"}
    chosen = fixes_of_kind("bias", tiny(), report)
    assert [fix.value for fix in chosen] == [fix.value for fix in fixes]
    assert all(str(fix.effect).endswith("-> 1") for fix in chosen)
    assert first_fixes(()) == ()
