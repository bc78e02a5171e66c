"""Runs that must have no findings, or information only: measured on random q, k, v and a byte-level language model."""

import math

import pytest


def run_of(written, *, model=(), steps=1, **series):
    facts = {"layers": 2, "heads": 4, "is_causal": True, **dict(model)}
    return written({"model": facts, "steps": steps, "series": series})


def measured(n, bias, mass, ratio, **model):
    """A preflight of a model of length n."""
    return {
        "model": {"max_length": n, "bias": bias, **model},
        "row_mass": mass,
        "twin_ratio": ratio,
        "bias": bias,
        "keys": n,
        "logit_std": 1.0,
    }


HEALTHY = {
    "causal-64": measured(64, -math.log(64), 0.77, 0.54),
    "causal-512": measured(512, -math.log(512), 0.82, 0.53),
    "causal-2048": measured(2048, -math.log(2048), 0.82, 0.47),
    "full-64": measured(64, -math.log(64), 1.58, 1.54, is_causal=False),
    "full-2048": measured(2048, -math.log(2048), 1.66, 1.68, is_causal=False),
    "qk-norm": measured(1024, -math.log(1024), 1.64, 1.0, qk_norm=True),
    "learnable": measured(1024, -math.log(1024), 0.82, 0.53) | {"model": {"max_length": 1024, "bias": "learnable"}},
    "alibi-without-bias": measured(2048, 0.0, 1.9, 1.5, position="alibi"),
    "vision-with-layer-scale": measured(197, 0.0, 98, 80, is_causal=False, layer_scale=True) | {"branch_ratio": 0.01},
    "bias-follows-the-length": measured(300, -math.log(300), 0.8, 0.5) | {"model": {"kind": "functional"}},
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_preflight_finds_nothing(name, written):
    assert run_of(written, **HEALTHY[name]).findings() == ()


@pytest.mark.parametrize("name", HEALTHY)
def test_the_same_start_recorded_live_finds_nothing(name, written):
    facts = {key: value for key, value in HEALTHY[name].items() if key != "twin_ratio"}
    assert run_of(written, steps=40, **facts).findings() == ()


@pytest.mark.parametrize(
    ("ratio", "facts"),
    [(3.8, {"kind": "softmax"}), (2.1, {}), (3.7, {"qk_norm": True}), (49, {"hybrid_norm": True})],
    ids=["softmax", "length-bias", "qk-norm", "hybrid-norm"],
)
def test_the_branch_ratios_of_healthy_runs_at_step_zero_find_nothing(ratio, facts, written):
    assert run_of(written, model={"max_length": 1024, **facts}, branch_ratio=ratio, attention_norm=118).findings() == ()


def test_softmax_never_gets_a_fix_for_sigmoid(written):
    run = run_of(
        written,
        model={"kind": "softmax", "max_length": 1024},
        steps=30,
        row_mass=1.0,
        bias=0.0,
        keys=1024,
        branch_ratio=200,
        attention_norm={"from": 1, "to": 1e8},
        logit_max={"from": 1, "to": 1e5},
        logit_std={"from": 1, "to": 1e3},
    )
    found = run.findings()
    assert {finding.code for finding in found} == {"ATT003", "ATT005", "RES001"}
    assert {fix.kind for finding in found for fix in finding.fixes} == {"qk_norm", "layer_scale", "learning_rate"}


UNHEALTHY = {
    "b-0": (measured(1024, 0.0, 256, 285), "ATT001", -6.73),
    "b-minus-3": (measured(1024, -3.0, 36, 27), "ATT001", -6.75),
    "b-0-layer-scale-1e-2": (
        measured(1024, 0.0, 256, 285, layer_scale=True) | {"branch_ratio": 11},
        "ATT001",
        -6.73,
    ),
    "b-0-layer-scale-1e-2-small-branch": (
        measured(256, 0.0, 64, 64, layer_scale=True) | {"branch_ratio": 0.105},
        "ATT001",
        -5.33,
    ),
    "b-0-hybrid-norm": (measured(1024, 0.0, 256, 285, hybrid_norm=True) | {"branch_ratio": 50}, "ATT001", -6.73),
    "b-minus-10-at-64": (measured(64, -10.0, 0.004, 0.002), "ATT002", -4.43),
    "four-below-the-length": (measured(1024, -math.log(1024) - 4, 0.015, 0.01), "ATT002", -6.73),
    "alibi-and-length-bias": (measured(2048, -math.log(2048), 0.003, 0.003, position="alibi"), "ATT002", -1.64),
    "alibi-and-length-bias-at-256": (
        measured(256, -math.log(256), 0.1, 0.2, position="alibi", is_causal=True),
        "CFG001",
        -3.21,
    ),
    "keys-beyond-the-length": (measured(1024, -math.log(1024), 2.4, 1.5) | {"keys": 2048}, "CFG002", -7.62),
}


@pytest.mark.parametrize("name", UNHEALTHY)
def test_an_unhealthy_start_is_one_cause_a_layer_with_the_bias_that_fixes_it(name, written):
    facts, code, bias = UNHEALTHY[name]
    found = [finding for finding in run_of(written, **facts).findings() if finding.follows is None]
    assert [(finding.code, finding.layer) for finding in found] == [(code, "layers.0"), (code, "layers.1")]
    assert (found[0].fix.kind, found[0].fix.value) == ("bias", pytest.approx(bias))


def test_a_measured_bias_goes_before_the_one_that_the_row_mass_gives(written):
    run = run_of(written, **measured(1024, 0.0, 256, 285), best_bias=-6.4321)
    assert run.findings()[0].fix.value == -6.43
    assert "b* = -6.43" in run.findings()[0].message


def test_a_learnable_bias_that_starts_low_is_information(written):
    facts = measured(1024, -10.0, 0.03, 0.02) | {"model": {"max_length": 1024, "bias": "learnable"}}
    assert {finding.severity.value for finding in run_of(written, **facts).findings()} == {"info"}


def test_wide_logits_under_the_right_bias_get_qk_norm_first(written):
    found = run_of(written, **measured(4096, -math.log(4096), 116, 60)).findings()
    assert [fix.kind for fix in found[0].fixes] == ["qk_norm", "bias", "hybrid_norm"]
    assert "large standard deviation" in found[0].cause


def test_vision_gets_layer_scale_after_the_bias(written):
    facts = {"layers": 1, "heads": 4, "max_length": 197, "bias": 0.0}
    series = {"row_mass": 98, "twin_ratio": 80, "bias": 0.0}
    found = written({"model": facts, "config": {"workload": "vision"}, "series": series}).findings()
    assert [fix.kind for fix in found[0].fixes] == ["bias", "layer_scale", "qk_norm"]


def test_what_the_model_has_is_not_suggested_again(written):
    start = run_of(written, **measured(4096, 0.0, 1024, 900, qk_norm=True, hybrid_norm=True)).findings()
    assert [fix.kind for fix in start[0].fixes] == ["bias"]


def test_isolated_gradient_spikes_are_information_and_the_run_has_no_error(written):
    spikes = {"around": 0.65, "noise": 0.03, "set": {70: 2, 110: 1.8, 170: 3, 230: 2.2, 280: 1.9}}
    found = run_of(written, steps=300, total_gradient_norm=spikes, loss={"from": 4, "to": 2}).findings()
    assert [(finding.severity.value, finding.times) for finding in found] == [("info", 5)]
    assert all(finding.fixes == () and finding.cleared is not None for finding in found)


def test_spikes_that_keep_coming_are_a_warning(written):
    spikes = {"around": 0.65, "noise": 0.03, "set": dict.fromkeys(range(60, 128, 8), 3)}
    found = run_of(written, steps=130, total_gradient_norm=spikes).findings()
    assert [(finding.severity.value, finding.times) for finding in found] == [("info", 4), ("warning", 4)]


def test_gradients_that_begin_high_and_fall_are_no_spikes(written):
    norms = {"around": 0.65, "noise": 0.03, "set": {0: 8, 1: 9, 2: 7, 3: 6, 4: 5, 5: 4, 6: 3, 7: 2.5, 76: 3}}
    found = run_of(written, steps=90, total_gradient_norm=norms).findings()
    assert [(finding.opened, finding.severity.value) for finding in found] == [(76, "info")]


def test_a_grad_scaler_in_search_of_its_scale_is_information(written):
    run = run_of(written, steps=20, total_gradient_norm=[math.inf] * 5 + [0.7] * 15, loss=3.0)
    assert [(f.code, f.severity.value, f.cleared) for f in run.findings()] == [("NUM002", "info", 5)]
    lasting = run_of(written, steps=20, total_gradient_norm=math.inf, loss=3.0).findings()
    assert [(finding.code, finding.severity.value) for finding in lasting] == [("NUM002", "warning")]


def test_one_logit_beyond_the_limit_is_growth_even_where_the_rows_stay_light(written):
    series = {"row_mass": 0.8, "logit_std": [1.0] * 5 + [3.0] * 5, "logit_max": [5.0] * 5 + [150.0] * 5}
    found = run_of(written, model={"max_length": 1024}, steps=10, **series).findings()
    assert [(finding.code, finding.metric, finding.opened) for finding in found] == [("ATT003", "logit_max", 7)] * 2


def test_embeddings_that_are_drawn_small_make_no_stream_grow_too_fast(written):
    stream = {"from": 0.03, "to": 2.4}
    run = run_of(written, steps=120, residual_out=stream | {"set": {0: 0.02, 1: 0.09}}, learning_rate=1e-3)
    assert run.findings() == ()


def test_heads_that_become_inactive_in_a_learnt_task_are_no_fault(written):
    masses = [0.5] * 60 + [0.01] * 40
    assert run_of(written, model={"max_length": 256}, steps=100, row_mass=masses).findings() == ()


def test_a_start_that_grows_names_one_bias_that_of_its_fix(written):
    facts = {"max_length": 512, "bias": 0.0}
    run = run_of(written, model=facts, steps=30, bias=0.0, keys=512, row_mass={"from": 128, "to": 400}, logit_std=0.3)
    found = next(finding for finding in run.findings() if finding.code == "ATT001")
    assert found.peak > found.opened
    assert "b*" not in found.message + found.cause
    assert found.fix.value == pytest.approx(-5.58, abs=0.05)


def starving(written, *, recovers=False, loss=2.2, **model):
    """Rows that start at 0.0004 and stay there, or climb within 30 samples."""
    masses = {"from": 0.0004, "to": 5.0} if recovers else 0.0004
    facts = {"max_length": 64, "bias": -12.0, "is_causal": False, **model}
    losses = {"from": 2.3, "to": loss}
    return run_of(written, model=facts, steps=60, row_mass=masses, bias=-12.0, branch_ratio=0.001, loss=losses, keys=64)


def severities(run, code):
    return {finding.severity.value for finding in run.findings() if finding.code == code}


def test_rows_starved_without_a_mask_are_a_warning_once_they_have_not_climbed(written):
    assert severities(starving(written), "ATT002") == {"warning"}
    assert severities(starving(written, recovers=True), "ATT002") == {"info"}
    assert severities(starving(written), "CFG001") == {"info"}


def test_rows_starved_in_a_task_that_is_learnt_all_the_same_stay_information(written):
    assert severities(starving(written, loss=0.1), "ATT002") == {"info"}


def test_a_learnable_bias_that_cannot_climb_in_the_planned_steps_is_as_a_fixed_one(written):
    text = {"model": {"max_length": 64, "bias": "learnable", "is_causal": True}, "series": {"row_mass": 0.003}}
    text["series"] |= {"bias": -10.0, "keys": 64}
    for steps, severity in ((200, "warning"), (20_000, "info")):
        planned = {"training": {"learning_rate": 1e-3, "steps": steps}}
        assert severities(written(text | {"config": planned}), "ATT002") == {severity}


@pytest.mark.parametrize(
    ("ratio", "qk_norm", "severity"), [(2.0, False, "info"), (12.0, False, "warning"), (12.0, True, "info")]
)
def test_saturated_weights_are_a_warning_where_they_drown_the_stream(ratio, qk_norm, severity, written):
    share = [0.001] * 10 + [0.3] * 10
    run = run_of(written, model={"qk_norm": qk_norm}, steps=20, saturated_fraction=share, branch_ratio=ratio)
    assert severities(run, "ATT004") == {severity}


@pytest.mark.parametrize(
    ("mass", "kind", "severities_"), [(0.1, "sigmoid", {"info"}), (9, "sigmoid", {"warning"}), (1, "softmax", set())]
)
def test_large_queries_and_keys_are_a_warning_where_rows_are_heavy(mass, kind, severities_, written):
    norms = [3.0] * 10 + [30.0] * 10
    run = run_of(written, model={"kind": kind}, steps=20, query_norm=norms, key_norm=norms, row_mass=mass)
    assert severities(run, "ATT008") == severities_


def test_attention_that_died_in_a_task_that_is_learnt_is_information(written):
    masses, ratios = {"from": 0.5, "to": 0.0004}, {"from": 0.2, "to": 0.0001}
    for end, severity in ((0.02, "info"), (1.0, "warning")):
        run = run_of(written, steps=40, row_mass=masses, branch_ratio=ratios, loss={"from": 2.3, "to": end})
        assert severities(run, "ATT006") == {severity}


def test_a_stream_that_grows_a_hundredfold_is_information_and_a_thousandfold_a_warning(written):
    for end, severity in ((100, "info"), (1000, "warning")):
        assert severities(run_of(written, steps=60, residual_out={"from": 1, "to": end}), "UPD002") == {severity}
