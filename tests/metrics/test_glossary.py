"""The glossary as a whole: complete entries, the order along the data's path, and the order of a stored row."""

import pytest

from stabmon.errors import ConfigError
from stabmon.metrics import METRICS, RAW, When, document, on_path
from stabmon.records import Attention
from stabmon.stats import Plan


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_has_a_text_and_a_unit(name):
    assert METRICS[name].text
    assert METRICS[name].unit


def test_a_mistyped_metric_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="no metric 'rowmass'; did you mean 'row_mass'"):
        document("rowmass")


def test_every_raw_input_is_used_by_a_metric():
    used = {name for metric in METRICS.values() for name in (*metric.inputs, *metric.counted)}
    assert {name for raw in RAW.values() for name in raw.inputs} <= used


def test_metrics_follow_the_data_through_a_layer_and_back():
    order = [
        *("keys", "residual_in", "query_norm", "key_norm", "bias", "logit_max", "logit_mean", "logit_std"),
        *("row_mass", "saturated_fraction", "dead_fraction", "best_bias", "attention_norm", "twin_ratio", "output_rms"),
        *("layer_scale", "branch_ratio", "residual_out", "block_growth", "gradient_norm", "total_gradient_norm"),
    ]
    assert [metric for metric in sorted(METRICS, key=on_path) if metric in order] == order


def test_a_metric_that_is_not_in_the_glossary_comes_after_those_of_its_layer():
    assert on_path("block_growth") < on_path("of_a_later_version") < on_path("gradient_norm")


def test_the_columns_of_a_training_are_in_the_order_that_stored_runs_have():
    one = Attention(layer="a", module="a", block="a", branch="a", kind="sigmoid", heads=2, head_dim=4, layer_scale=True)
    layout = Plan([one], ("loss", "extra"), optimizer=True).layout  # a run is resumed only with the layout it has
    stored = [
        *("attention_norm", "output_rms", "row_mass", "logit_max", "logit_mean", "logit_std", "saturated_fraction"),
        *("dead_fraction", "query_norm", "key_norm", "bias", "keys", "residual_in", "residual_out", "branch_ratio"),
        *("block_growth", "gradient_norm", "layer_scale", "total_gradient_norm", "learning_rate", "loss", "extra"),
    ]
    assert [column.metric for column in layout.columns if column.metric in stored] == stored


def test_a_logged_metric_has_no_inputs_to_compute():
    logged = [metric.name for metric in METRICS.values() if metric.when is When.LOGGED]
    assert logged == ["loss", "softmax_gap", "softmax_gap_low", "race_cost"]
    assert not set(logged) & RAW.keys()


def test_the_reduction_over_the_passes_of_a_step_is_that_of_the_raw_inputs():
    said = {name: document(name).over_passes for name in ("row_mass", "logit_max", "gradient_norm", "loss")}
    assert said == {
        "row_mass": "all passes together",
        "logit_max": "the largest of all passes",
        "gradient_norm": "as the last pass leaves it",
        "loss": "the last number logged",
    }
