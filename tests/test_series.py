import numpy as np
import pytest

from stabmon.series import Series, Spot, worst


def bucket(metric: str, low: float, high: float, value: float = 1.0) -> float:
    one = [np.array([[number]], dtype=np.float32) for number in (value, low, high)]
    return float(worst(Series(metric, [Spot("layers.0", None)], np.arange(1), *one)).values[0, 0])


def test_the_worst_of_a_bucket_is_the_furthest_by_ratio_where_a_healthy_value_is_known():
    assert bucket("row_mass", 0.1, 4.0) == pytest.approx(0.1)
    assert bucket("row_mass", 0.5, 4.0) == 4.0
    assert bucket("row_mass", 0.0, 4.0) == 0.0


def test_the_worst_of_a_bucket_is_else_the_largest_magnitude():
    assert bucket("logit_mean", -3.0, 2.0) == -3.0
    assert bucket("logit_mean", -3.0, np.inf) == np.inf


def test_a_nan_in_a_bucket_is_shown():
    assert np.isnan(bucket("row_mass", 1.0, 2.0, value=np.nan))
