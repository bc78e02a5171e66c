"""The loss rules on losses that are not logged at every sample."""

import warnings

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
