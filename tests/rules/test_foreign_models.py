"""Runs of models that nobody here wrote: what is there already is seen, and what did no harm is information."""

import math

import pytest

FACTS = {"layers": 2, "heads": 2, "head_dim": 64, "max_length": 4096, "is_causal": True, "bias": -8.3}
GROWN = {
    "logit_std": [0.5] * 10 + [7.0] * 30,
    "row_mass": [1.0] * 10 + [60.0] * 30,
    "attention_norm": [1.0] * 10 + [2000.0] * 30,
    "saturated_fraction": [0.0001] * 10 + [0.3] * 30,
}
GROWTH = ("ATT003", "ATT004", "ATT005")
PLATEAU = [2.3 - 0.01 * step for step in range(10)] + [2.2 + 0.001 * step for step in range(30)]


def found(written, code=None, **text):
    text = {"steps": 40} | text | {"model": FACTS | text.get("model", {})}
    return [one for one in written(text).findings() if code in (None, one.code)]


def kinds(findings):
    return {fix.kind for one in findings for fix in one.fixes}


@pytest.mark.parametrize(
    ("series", "has"),
    [({"query_norm": 8.0, "key_norm": 8.02}, True), ({"query_norm": 8.0, "key_norm": 7.5}, False), ({}, False)],
    ids=["normed", "queries alone", "unknown"],
)
def test_queries_and_keys_of_one_norm_are_those_of_qk_norm(series, has, written):
    growth = found(written, "ATT005", series=GROWN | series)
    assert ("qk_norm" in kinds(growth)) is not has


@pytest.mark.parametrize(
    ("first", "has"), [(1.001, True), (0.9, False)], ids=["a branch of rms one", "a branch of another size"]
)
def test_branches_of_rms_one_are_those_of_hybrid_norm(first, has, written):
    branch = {"residual_in": [0.02] + [2.0] * 39, "branch_ratio": [first / 0.02] + [30.0] * 39}
    growth = found(written, "ATT005", series=GROWN | branch)
    assert ("hybrid_norm" in kinds(growth)) is not has
    assert {str(one.severity) for one in growth} == {"info" if has else "warning"}


@pytest.mark.parametrize("code", GROWTH)
@pytest.mark.parametrize(
    ("loss", "alarm"), [([2.3 - 0.04 * step for step in range(40)], False), (PLATEAU, True)], ids=["falls", "stands"]
)
def test_without_a_mask_growth_is_a_warning_once_the_loss_no_longer_falls(code, loss, alarm, written):
    growth = found(written, code, model={"is_causal": False}, series=GROWN | {"loss": loss})
    assert any(one.severity.rank > 0 for one in growth) is alarm


@pytest.mark.parametrize(("mass", "severity"), [(0.002, "info"), (0.0005, "warning")])
def test_images_whose_rows_begin_six_below_the_length_are_information(mass, severity, written):
    series = {"row_mass": mass, "branch_ratio": 0.001, "loss": 2.2}
    starved = found(written, "ATT002", model={"is_causal": False}, steps=60, series=series)
    assert {str(one.severity) for one in starved} == {severity}


def test_starved_rows_of_images_are_information_where_no_branch_was_measured(written):
    starved = found(written, "ATT002", model={"is_causal": False}, steps=60, series={"row_mass": 0.0005, "loss": 2.2})
    assert {str(one.severity) for one in starved} == {"info"}


def test_rows_that_a_step_made_heavy_did_not_start_so(written):
    assert found(written, "ATT001", steps=3, series={"row_mass": [1.6, 30.0, 40.0]}) == []


@pytest.mark.parametrize(("bias", "kinds_"), [(-8.3, {"qk_norm"}), (-12.0, {"bias", "qk_norm"})])
def test_logits_that_collapsed_are_not_made_up_for_by_a_bias(bias, kinds_, written):
    """b* by the rows of now is above +4; no run wants more than that of its start, where rows summed to one."""
    excess = bias + 8.3
    series = {"row_mass": {"from": math.exp(excess), "to": 1e-7}, "branch_ratio": {"from": 0.2, "to": 1e-4}}
    series |= {"bias": bias, "logit_mean": {"from": 1e-9, "to": 1e-3}, "keys": 4096}
    facts = {"bias": bias}
    dead = found(written, "ATT006", model=facts, series=series) or found(written, "ATT002", model=facts, series=series)
    assert dead
    values = [fix.value for one in dead for fix in one.fixes if fix.kind == "bias"]
    assert kinds(dead) <= kinds_
    assert all(value == pytest.approx(-8.3, abs=0.02) for value in values)


def test_a_measured_best_bias_above_zero_is_cut_off(written):
    series = {"row_mass": 1e-4, "bias": -8.3, "best_bias": 9.4, "keys": 4096}
    starved = found(written, "ATT002", steps=1, series=series)
    assert [fix.value for one in starved for fix in one.fixes] == [pytest.approx(0.0)] * 2


def test_a_block_that_outgrows_a_small_embedding_is_information(written):
    start = found(written, "RES002", steps=3, series={"block_growth": 12.9, "branch_ratio": 0.1, "residual_in": 0.02})
    assert {str(one.severity) for one in start} == {"info"}


def test_gradients_alone_not_finite_are_not_called_an_overflow_where_nothing_says_fp16(written):
    series = {"loss": 2.0, "gradient_norm": [1.0, 1.0, math.nan]}
    (one,) = found(written, "NUM002", steps=3, series=series)
    assert "several processes" in one.cause
    assert "overflowed" not in one.cause
    text = {"steps": 3, "series": series, "config": {"training": {"precision": "fp16"}}}
    (one,) = (found_ for found_ in written(text).findings() if found_.code == "NUM002")
    assert "GradScaler is adjusting" in one.cause


@pytest.mark.parametrize(("first", "flagged"), [(0.0, False), (0.001, True)], ids=["zeros", "small"])
def test_a_stream_that_starts_at_zero_has_no_size_to_be_drowned(first, flagged, written):
    series = {"residual_in": [first, 0.002, 0.002], "branch_ratio": [None, 47.1, 40.0]}
    assert bool(found(written, "RES001", steps=3, series=series)) is flagged
