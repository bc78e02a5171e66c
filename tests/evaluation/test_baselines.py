import numpy as np
import pytest

from stabmon.evaluation.baselines import BASELINES, cusum, deviations, over_running_mean, zclip

NOISE = 1.0 + 0.01 * np.sin(np.arange(200.0))


def spiked(at: int = 150, size: float = 5.0) -> np.ndarray:
    values = NOISE.copy()
    values[at] = size
    return values


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)
def test_a_quiet_run_is_quiet_and_a_spike_is_seen(baseline) -> None:
    assert not (baseline.scores(NOISE, NOISE) > baseline.threshold).any()
    over = baseline.scores(spiked(), spiked()) > baseline.threshold
    assert over.argmax() == 150


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)
def test_a_loss_that_is_not_finite_is_always_seen(baseline) -> None:
    losses = NOISE.copy()
    losses[3] = np.nan
    assert (baseline.scores(losses, NOISE) > baseline.threshold).argmax() == 3


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda baseline: baseline.name)
def test_missing_gradients_are_no_alarm(baseline) -> None:
    gradients = np.full(200, np.nan)
    assert not (baseline.scores(NOISE, gradients) > baseline.threshold).any()


def test_deviations_are_those_of_the_values_before() -> None:
    values = np.concatenate([np.tile([0.0, 2.0], 40), [7.0]])
    past = values[:80]
    assert deviations(values)[80] == pytest.approx((7.0 - past.mean()) / past.std(ddof=1))
    assert np.isneginf(deviations(values)[:64]).all()


def test_zclip_begins_after_its_warm_up_and_clips_what_it_learns_from() -> None:
    values = np.array([1.0, 3.0] * 13 + [30.0, 2.0])
    scores = zclip(values)
    start = values[:25]
    assert np.isneginf(scores[:25]).all()
    assert scores[25] == pytest.approx((3.0 - start.mean()) / (start.std() + 1e-6))
    assert scores[26] > 20
    assert scores[27] > -1  # an unclipped 30 would have moved the mean by 0.8


def test_the_running_mean_counts_rises_only() -> None:
    values = np.array([4.0, 8.0, 6.0, 12.0])
    assert over_running_mean(values).tolist() == [-np.inf, 2.0, -np.inf, 2.0]


def test_cusum_adds_up_a_slow_rise() -> None:
    slow = NOISE.copy()
    slow[100:] += 0.002 * np.arange(100)
    assert cusum(slow).max() > 5.0
    assert deviations(slow).max() < 6.0
