import numpy as np
import pytest

from stabmon.rules import Limits, Run
from stabmon.rules.baseline import spike


@pytest.fixture
def spiked(written):
    def make(past, now, **limits):
        run = written({"steps": len(past) + 1, "series": {"loss": [*past, now]}})
        view = Run(run.info, run.layout)
        for step, row in zip(run.steps, run.rows, strict=True):
            view.add(step, row)
        los = Limits.from_mapping({"los": limits}).los
        return spike(view, "loss", los, los.spread_floor)

    return make


@pytest.mark.parametrize("samples", [40, 41], ids=["even", "odd"])
def test_usual_and_spread_are_median_and_median_absolute_deviation(samples, spiked):
    past = np.random.default_rng(1).normal(3, 0.2, samples)
    found = spiked([float(value) for value in past], 9.0)
    assert found.usual == pytest.approx(np.median(past), rel=1e-6)
    assert found.spread == pytest.approx(1.4826 * np.median(np.abs(past - np.median(past))), rel=1e-5)
    assert found.deviations == pytest.approx((9 - found.usual) / found.spread)


def test_a_spike_does_not_move_its_own_baseline(spiked):
    assert spiked([3.0] * 40 + [300.0], 9.0).usual == 3


def test_a_very_quiet_series_needs_more_than_its_floor(spiked):
    assert spiked([3.0] * 40, 3.1) is None
    found = spiked([3.0] * 40, 3.2)
    assert (found.spread, found.hit.limit) == (pytest.approx(0.03), pytest.approx(3.18))


def test_a_spike_is_over_when_the_series_is_back_at_its_usual_value(written):
    path = {"around": 3.0, "set": {50: 4}}
    (found,) = written({"steps": 60, "series": {"loss": path}}).findings()
    assert (found.opened, found.last, found.cleared) == (50, 50, 51)


def test_a_series_that_is_too_short_has_no_spikes(spiked):
    assert spiked([3.0] * 31, 9.0) is None
    assert spiked([3.0] * 31, 9.0, samples_min=31) is not None


def test_only_the_window_counts(spiked):
    assert spiked([1.0] * 500 + [9.0] * 128, 9.3, window=128) is None
    assert spiked([1.0] * 500 + [9.0] * 128, 9.3, window=600) is not None


def test_a_series_of_zeros_or_of_nothing_has_no_spikes(spiked):
    assert spiked([0.0] * 40, 0.0) is None
    assert spiked([0.0] * 40, 1.0) is None
    assert spiked([float("nan")] * 40, 3.0) is None
