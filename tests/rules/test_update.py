"""The rule about a missing warm-up on schedules that rise and fall within the first steps."""

import pytest

FACTS = {"layers": 2, "heads": 2, "head_dim": 16, "max_length": 128, "bias": -4.852}


@pytest.mark.parametrize(
    ("rates", "found"),
    [([1.0] * 12, True), ([0.2, 0.6, *[1.0] * 6, 0.3, 0.3, 0.3, 0.3], False)],
    ids=["full-rate", "up-and-down"],
)
def test_the_first_rate_is_held_against_the_largest_so_far(rates, found, written):
    stream = [1.0] * 10 + [8.0, 8.0]
    run = written({"model": FACTS, "steps": 12, "series": {"learning_rate": rates, "residual_out": stream}})
    assert ("UPD001" in {finding.code for finding in run.findings()}) is found
