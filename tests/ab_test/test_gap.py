"""The interval of a gap from one pair of trainings."""

import pytest

from stabmon.ab_test.gap import BLOCKS, CONFIRMED, MARGIN, WINDOW, behind_from, gap


def test_too_few_differences_have_no_interval():
    assert gap([1.0] * (WINDOW - 1)) is None


def test_the_interval_is_over_means_of_blocks_of_the_newest_window():
    found = gap([9.0] * 5 + [float(i // (WINDOW // BLOCKS)) for i in range(WINDOW)])
    assert found.mean == pytest.approx(1.5)
    assert found.low == pytest.approx(1.5 - 3.1824 * (5 / 3) ** 0.5 / 2, abs=1e-3)


def test_a_gap_must_be_above_the_margin_in_several_intervals():
    small, large = [MARGIN / 2] * 40, [2 * MARGIN] * 40
    assert behind_from(small, [0.0] * 40) is None
    assert behind_from(large, [0.0] * 40) == WINDOW + CONFIRMED - 2


def test_a_training_that_ends_in_nan_is_behind():
    assert behind_from([1.0] * 20 + [float("nan")] * 20, [1.0] * 40) is not None
