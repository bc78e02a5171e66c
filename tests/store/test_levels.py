import itertools
import math

import numpy as np
import pytest

from stabmon.series import MISSING_BITS, Spot, is_missing, over_heads
from stabmon.store import open_run

ROW_MASS = [0, 1, 2, 4, 5, 6]
"""Columns of row_mass in the layout, in its order: layers.10 before layers.2."""


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


def plain_buckets(values, size):
    """The slow reference: low, mean and high of each bucket and column, one at a time."""
    low, mean, high = [], [], []
    for start in range(0, len(values), size):
        for column in values[start : start + size].T:
            with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
                measured = column[~is_missing(column)].astype(np.float64)
            numbers = measured[~np.isnan(measured)]
            gap = np.uint32(MISSING_BITS).view(np.float32)
            low.append(gap if not len(measured) else numbers.min() if len(numbers) else np.nan)
            high.append(gap if not len(measured) else numbers.max() if len(numbers) else np.nan)
            with np.errstate(invalid="ignore"):
                mean.append(gap if not len(measured) else measured.mean())
    return [np.array(plane, np.float32).reshape(-1, values.shape[1]) for plane in (low, mean, high)]


@pytest.mark.parametrize("max_points", [1, 2, 5, 9, 60, 150, 599])
def test_downsampled_values_are_those_of_a_slow_reference(max_points, write, odd_rows, tmp_path):
    rows = odd_rows(600)
    rows[100:400, 4] = np.uint32(MISSING_BITS).view(np.float32)
    rows[:, [0, 5]] = np.abs(np.nan_to_num(rows[:, [0, 5]], posinf=3.0, neginf=1.0))
    write(rows)
    size = math.ceil(600 / max_points)
    unit = max(unit for unit in (1, 32, 128) if unit <= size)
    with open_run(tmp_path / "lm") as run:
        read = run.read("row_mass", max_points=max_points)
    assert len(read.steps) <= max_points
    if unit == 1:
        low, mean, high = plain_buckets(rows[:, ROW_MASS], size)
        assert read.steps.tolist() == list(range(0, 600, size))
    else:
        edges = [*read.steps, 600]
        parts = [plain_buckets(rows[start:stop, ROW_MASS], 600) for start, stop in itertools.pairwise(edges)]
        low, mean, high = (np.concatenate(planes) for planes in zip(*parts, strict=True))
    np.testing.assert_array_equal(bits(read.low), bits(low))
    np.testing.assert_array_equal(bits(read.high), bits(high))
    np.testing.assert_allclose(read.values, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(is_missing(read.values), is_missing(mean))


def test_a_spike_and_a_nan_of_one_step_are_seen_from_afar(write, layout, tmp_path):
    rows = np.ones((1000, layout.width), np.float32)
    rows[517, 3], rows[800, 3] = 1e6, np.nan
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read("loss", max_points=4)
    assert len(read.steps) == 4
    assert read.high[:, 0].max() == 1e6
    assert np.isnan(read.values).sum() == 1
    assert not np.isnan(read.low).any()


@pytest.mark.parametrize("max_points", [None, 100, 4], ids=["raw", "buckets", "levels"])
def test_one_column_a_layer_is_made_as_the_glossary_says(max_points, write, layout, tmp_path):
    rows = np.abs(np.random.default_rng(1).standard_normal((300, layout.width))).astype(np.float32)
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read_layers("logit_max", max_points=max_points)
        assert run.read_layers("row_mass", max_points=max_points).values.shape == (len(read.steps), 2)
    truth = over_heads("logit_max", rows[:, 7:9])
    assert read.spots == [Spot("layers.2", None)]
    if max_points is None:
        np.testing.assert_array_equal(read.values[:, 0], truth)
        return
    edges = [*read.steps, 300]
    for row, (start, stop) in enumerate(itertools.pairwise(edges)):
        assert read.high[row, 0] >= truth[start:stop].max()
        assert read.low[row, 0] <= truth[start:stop].min()
