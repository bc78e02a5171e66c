"""Comparisons with a limit, in the one place where they are made."""

import math

import numpy as np
import pytest

from stabmon.rules import Run
from stabmon.series import MISSING


@pytest.fixture
def view(written):
    def make(*rows, metric="row_mass", heads=3):
        run = written({"model": {"layers": 2, "heads": heads}, "series": {metric: 0.0}})
        view = Run(run.info, run.layout)
        for step, row in enumerate(rows):
            view.add(step, np.array(row, np.float32))
        return view

    return make


def test_above_names_the_worst_head_and_counts_the_others(view):
    (hit,) = view([1, 12, 20, 1, 1, 1]).series("row_mass").above(10)
    assert (hit.layer, hit.head, hit.value, hit.excess, hit.heads, hit.measured) == ("layers.0", 2, 20, 2, 2, 3)
    assert hit.where == " in 2 of 3 heads"


def test_below_names_the_smallest_head(view):
    (hit,) = view([1, 1, 1, 0.01, 0.02, 1]).series("row_mass").below(0.05)
    assert (hit.layer, hit.head, hit.excess, hit.heads) == ("layers.1", 0, pytest.approx(5), 2)


def test_a_value_near_its_limit_is_seen_but_is_not_over_it(view):
    (hit,) = view([9, 1, 1, 1, 1, 1]).series("row_mass").above(10)
    assert (hit.excess, hit.heads) == (pytest.approx(0.9), 0)
    (at,) = view([10, 1, 1, 1, 1, 1]).series("row_mass").above(10)
    assert (at.excess, at.heads) == (1, 0)


@pytest.mark.parametrize("value", [math.nan, MISSING], ids=["nan", "missing"])
def test_what_is_no_number_is_neither_above_nor_below(value, view):
    series = view([value] * 6).series("row_mass")
    assert series.above(10) == series.below(10) == []
    mixed = view([value, 20, value, 1, value, 0.01]).series("row_mass")
    assert [hit.head for hit in mixed.above(10)] == [1]
    assert [hit.head for hit in mixed.below(0.05)] == [2]


def test_infinity_is_above_every_limit_and_zero_below(view):
    series = view([math.inf, 1, 1, 0, 1, 1]).series("row_mass")
    assert [(hit.layer, hit.excess) for hit in series.above(1e30)] == [("layers.0", math.inf)]
    assert [(hit.layer, hit.excess) for hit in series.below(0.05)] == [("layers.1", math.inf)]


def test_a_limit_may_differ_by_column_and_nan_limits_nothing(view):
    limit = np.array([5, math.nan, 50, 50, 50, 50])
    (hit,) = view([20, 20, 20, 20, 20, 20]).series("row_mass").above(limit)
    assert (hit.layer, hit.head, hit.limit, hit.heads) == ("layers.0", 0, 5, 1)


def test_the_start_is_the_mean_of_the_first_five_numbers_of_each_column(view):
    rows = [[1, MISSING, math.nan, 2, 2, 2]] * 2 + [[3, 4, MISSING, 2, 2, 2]] * 9
    start = view(*rows).series("row_mass").start
    assert start[0] == pytest.approx((1 + 1 + 3 + 3 + 3) / 5)
    assert start[1] == 4
    assert math.isnan(start[2])


def test_a_metric_of_the_layer_is_repeated_for_each_of_its_heads(written):
    run = written({"model": {"layers": 2, "heads": 2}, "series": {"bias": -1, "keys": 7, "layers.1/keys": 9}})
    view = Run(run.info, run.layout)
    view.add(0, run.rows[0])
    assert view.series("bias").beside("keys").tolist() == [7, 7, 9, 9]
    assert np.isnan(view.series("bias").beside("row_mass")).all()


def test_a_metric_that_is_not_recorded_has_no_columns(view):
    view = view([1] * 6)
    assert view.series("loss").above(0.1) == view.series("loss").below(10) == []
    assert view.value("loss", None) is None
    assert view.cells(None, "loss") == ()
