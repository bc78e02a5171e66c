import math

from stabmon.evaluation.lead import shown
from tests.evaluation.made import outcome

USUAL = outcome("usual", [1.0] * 100)


def test_the_loss_shows_it_where_its_mean_leaves_the_reference_for_good() -> None:
    run = outcome("run", [1.0] * 40 + [2.0] * 60)
    assert shown(run, [USUAL], margin=0.52) == 50  # eleven of the last twenty losses are 2


def test_a_passing_rise_of_the_loss_is_no_failure() -> None:
    run = outcome("run", [1.0] * 40 + [2.0] * 15 + [1.0] * 45)
    assert shown(run, [USUAL], margin=0.5) == 100


def test_a_loss_that_is_not_finite_shows_it_at_once() -> None:
    run = outcome("run", [1.0] * 7 + [math.nan] * 93)
    assert shown(run, [USUAL], margin=0.5) == 7
    assert shown(run, [], margin=0.0) == 7


def test_a_failure_that_the_loss_never_shows_is_shown_at_the_end() -> None:
    assert shown(outcome("run", [1.2] * 100), [USUAL], margin=0.5) == 100
