"""The arithmetic on the host, on buffers written by hand."""

import numpy as np

from stabmon import kernels
from stabmon.metrics import RAW, Per
from stabmon.metrics.attention import STATISTICS
from stabmon.records import Attention
from stabmon.series import MISSING_BITS, is_missing
from stabmon.stats import Plan, finalise


def _attention(layer="layers.0", **more):
    given = {
        "module": f"{layer}.a",
        "block": layer,
        "branch": f"{layer}.a",
        "kind": "sigmoid",
        "heads": 2,
        "head_dim": 4,
    }
    return Attention(layer=layer, **(given | more))


def _of(plan, row, metric):
    return row[plan.columns[metric]]


def test_a_buffer_that_nothing_was_added_to_is_missing_everywhere():
    plan = Plan([_attention(), _attention("layers.1", layer_scale=True)], ("loss",), optimizer=True)
    row = finalise(plan.initial, plan)
    assert row.shape == (plan.layout.width,)
    assert (row.view(np.uint32) == MISSING_BITS).all()


def test_sums_become_means_roots_and_shares():
    plan = Plan([_attention()])
    raw, slots = plan.initial.copy(), plan.slots[0]
    sums = raw[slots["statistics"]].reshape(2, len(STATISTICS.columns))
    sums[:] = [[8, 6, 4, 20, 60, 10, 1, 5]] * 2
    raw[slots["query_squares"]], raw[slots["key_squares"]] = 18, 32
    raw[slots["counts"]] = [2, 4, 2, 8]
    raw[slots["logit_max"]] = [3, 7]
    row = finalise(raw, plan)
    expected = {
        "attention_norm": 2.0,
        "output_rms": np.sqrt(2),
        "row_mass": 1.5,
        "logit_mean": 2.0,
        "logit_std": np.sqrt(2),
        "saturated_fraction": 0.1,
        "dead_fraction": 0.5,
        "query_norm": 3.0,
        "key_norm": 2.0,
    }
    for metric, value in expected.items():
        np.testing.assert_allclose(_of(plan, row, metric), [value] * 2, rtol=1e-6, err_msg=metric)
    np.testing.assert_array_equal(_of(plan, row, "logit_max"), [3, 7])


def test_a_variance_that_rounding_made_negative_is_zero():
    plan = Plan([_attention(heads=1)])
    raw, slots = plan.initial.copy(), plan.slots[0]
    raw[slots["statistics"]] = [0, 0, 1, 10, 9.99999, 10, 0, 0]
    assert _of(plan, finalise(raw, plan), "logit_std") == 0


def test_nan_sums_are_measured_and_stay_nan():
    plan = Plan([_attention(heads=1)])
    raw, slots = plan.initial.copy(), plan.slots[0]
    raw[slots["statistics"]] = [np.nan, np.nan, 1, np.nan, np.nan, 1, 0, 0]
    raw[slots["query_squares"]] = np.inf
    raw[slots["counts"]] = [1, 1, 1, 1]
    row = finalise(raw, plan)
    for metric in ("attention_norm", "row_mass", "logit_mean", "logit_std"):
        assert np.isnan(_of(plan, row, metric)).all(), metric
        assert not is_missing(_of(plan, row, metric)).any(), metric
    assert np.isinf(_of(plan, row, "query_norm")).all()


def test_a_block_is_shared_by_its_attentions_which_have_a_stream_each():
    both = [_attention("a", block="b"), _attention("c", block="b")]
    plan = Plan(both)
    raw = plan.initial.copy()
    first, second = plan.slots
    raw[first["stream_in"]], raw[second["stream_in"]], raw[second["branch"]] = [4, 4], [16, 4], [16, 1]
    raw[first["stream_out"]], raw[first["gradient_norm"]] = [36, 4], 3
    row = finalise(raw, plan)
    np.testing.assert_array_equal(_of(plan, row, "residual_in"), [1, 2])
    np.testing.assert_array_equal(_of(plan, row, "block_growth"), [3, 1.5])
    np.testing.assert_array_equal(_of(plan, row, "gradient_norm"), [3, 3])
    np.testing.assert_array_equal(is_missing(_of(plan, row, "branch_ratio")), [True, False])
    assert _of(plan, row, "total_gradient_norm") == 3


def test_parts_that_no_hook_can_read_have_no_columns():
    unknown = (("stream",), ("branch",), ("block",))
    plan = Plan([_attention(f"layers.{index}", unknown=parts) for index, parts in enumerate(unknown)])
    assert plan.layout.layers("residual_in") == ["layers.1", "layers.2"]
    assert plan.layout.layers("branch_ratio") == ["layers.2"]
    assert plan.layout.layers("block_growth") == ["layers.1"]


def test_softmax_has_no_bias_columns_and_a_plain_branch_no_gain():
    plan = Plan([_attention(kind="softmax"), _attention("layers.1", layer_scale=True)])
    assert plan.layout.layers("bias") == ["layers.1"]
    assert plan.layout.layers("layer_scale") == ["layers.1"]


def test_slots_do_not_overlap_and_fill_the_buffer():
    plan = Plan([_attention(), _attention("layers.1", heads=3)], ("loss",), preflight=True)
    used = np.zeros(plan.width, dtype=int)
    for slots in plan.slots:
        for part in slots.slices.values():
            used[part] += 1
    for part in (*(plan.of_run(raw.name) for raw in RAW.values() if raw.per is Per.RUN), *plan.logged.values()):
        used[part] += 1
    assert (used == 1).all()


def test_the_declared_sums_are_the_kernels_statistics():
    *sums, maximum = kernels.STATISTICS
    assert STATISTICS.columns == tuple(sums)
    assert maximum in RAW
