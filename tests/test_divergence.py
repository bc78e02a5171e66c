import math

import pytest

from stabmon.divergence import diverged


@pytest.mark.parametrize(
    ("losses", "final", "expected"),
    [
        ([3.0, 2.0, 1.0, 0.5], 0.5, False),
        ([3.0, 3.0, 3.0], 3.0, False),
        ([3.0, 2.0, 1.0, 2.5], 2.1, False),
        ([3.0, 2.0, 1.0, 2.5], 2.3, True),
        ([3.0, 2.0, 1.0], math.nan, True),
        ([3.0, 2.0, 1.0], math.inf, True),
        ([3.0, math.nan, 1.0], 0.5, True),
        ([3.0], 2.9, False),
        ([3.0, 100.0, 50.0, 20.0], 20.0, True),
    ],
)
def test_a_training_diverged_if_it_ended_a_tenth_above_its_first_loss_or_the_mean_of_three(losses, final, expected):
    assert diverged(losses, final) is expected
