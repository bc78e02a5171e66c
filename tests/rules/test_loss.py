"""The loss rules on losses that are sparse, tiny, noisy or odd now and then."""

import warnings

import numpy as np
import pytest

from stabmon.rules import Limits


def _rising(every, steps=160):
    return [(2.0 if step < steps // 2 else 6.0) if step % every == 0 else None for step in range(steps)]


@pytest.mark.parametrize("every", [1, 2], ids=["each", "every-other"])
def test_a_divergence_is_found_also_where_samples_have_no_loss(every, written):
    losses = _rising(every)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = written({"steps": len(losses), "series": {"loss": losses}}).findings()
    (divergence,) = [finding for finding in found if finding.code == "LOS002"]
    assert 80 < divergence.opened < 100
    assert (divergence.value, divergence.limit) == (6.0, pytest.approx(2.4))


def test_blocks_of_one_sample_may_be_empty(written):
    losses = [None if step % 3 else 2.0 for step in range(60)] + [5.0] * 4
    run = written({"steps": len(losses), "series": {"loss": losses}})
    found = run.findings(limits=Limits.from_mapping({"los.lasting": 1}))
    assert [finding.opened for finding in found if finding.code == "LOS002"] == [60]


def test_a_loss_near_zero_that_rises_by_a_fifth_of_itself_has_not_diverged(written):
    losses = [28.0] * 5 + [0.08] * 80 + [0.12] * 40
    found = written({"steps": len(losses), "series": {"loss": losses}}).findings()
    assert [finding.code for finding in found if finding.code == "LOS002"] == []


LONG = 2000
NOISE = np.random.default_rng(0)
STATIONARY = {
    "normal": 1 + 0.3 * NOISE.normal(size=LONG),
    "uniform": NOISE.uniform(size=LONG),
    "factors": np.exp(0.5 * NOISE.normal(size=LONG)),
}


def _findings(written, **series):
    found = written({"steps": LONG, "series": {name: path.tolist() for name, path in series.items()}}).findings()
    return {finding.code: finding for finding in found}, found


@pytest.mark.parametrize("noise", STATIONARY)
def test_stationary_noise_is_no_divergence(noise, written):
    by_code, _ = _findings(written, loss=STATIONARY[noise])
    assert by_code.keys() <= {"LOS001", "LOS003"}  # "factors" has heavy tails; a loss that does not fall is one finding
    assert all(one.severity.value == "info" for code, one in by_code.items() if code == "LOS001")


def test_a_rise_beyond_the_noise_is_a_divergence(written):
    noise = np.where(np.arange(LONG) < LONG // 2, 1.0, 2.5) + 0.3 * np.random.default_rng(1).normal(size=LONG)
    by_code, _ = _findings(written, loss=noise)
    assert LONG // 2 <= by_code["LOS002"].opened < LONG // 2 + 16


@pytest.mark.parametrize("start", [1e-10, 3.0], ids=["from-the-start", "after-a-fall"])
def test_a_loss_of_next_to_nothing_says_nothing(start, written):
    factors = np.random.default_rng(0).normal(size=LONG)
    path = np.maximum(start * np.exp(-np.arange(LONG) / 50), 1e-10) * np.exp(0.5 * factors)
    _, found = _findings(written, loss=path, total_gradient_norm=np.where(path < 1e-6, path, 1.0))
    assert [one.code for one in found if one.code.startswith("LOS") or one.code == "GRD001"] == []


def test_one_odd_batch_in_a_hundred_is_one_finding_a_rule(written):
    odd = np.arange(LONG) % 100 == 99
    noise = np.random.default_rng(0).normal(size=(2, LONG))
    falling = 2 + 2 * np.exp(-np.arange(LONG) / 100) + 0.02 * noise[0]
    _, found = _findings(
        written, loss=np.where(odd, 8.0, falling), total_gradient_norm=np.where(odd, 10.0, np.exp(0.1 * noise[1]))
    )
    assert [(one.code, one.severity.value, one.times) for one in found] == [
        ("LOS004", "info", 20),
        ("GRD001", "info", 20),
        ("LOS001", "info", 20),
    ]


TIME = np.arange(300)
CALM = 3 * np.exp(-TIME / 40) + np.random.default_rng(0).normal(0, 0.05, 300)
CURVES = {
    "healthy": (CALM, 1.0, set()),
    "climbs": (CALM + np.maximum(0, TIME - 200) * 0.05, 1.0, {"LOS001", "LOS002"}),
    "jumps": (CALM + 3.0 * (TIME >= 200), 1.0, {"LOS001", "LOS002"}),
    "one bad batch": (CALM + 4.5 * (TIME == 200), 1 + 9.0 * (TIME == 200), {"GRD001", "LOS001", "LOS004"}),
}


@pytest.mark.parametrize("shift", [1.0, 0.0, -2.0, -6.0])
@pytest.mark.parametrize("name", CURVES)
def test_a_loss_may_be_negative(name, shift, written):
    losses, gradients, codes = CURVES[name]
    norms = np.broadcast_to(gradients, 300).tolist()
    run = written({"steps": 300, "series": {"loss": (losses + shift).tolist(), "total_gradient_norm": norms}})
    assert {one.code for one in run.findings()} - {"LOS003"} == codes
