"""Intervals and verdicts, on numbers computed by hand."""

import math

import pytest

from stabmon.ab_test.report import Arm, Interval, TrialReport
from stabmon.fixes import clip_fix


def report(without: list[float], with_fix: list[float], first: float = 3.0) -> TrialReport:
    arms = [Arm.of([[first] * 4 + [last] * 4 for last in finals], ()) for finals in (without, with_fix)]
    return TrialReport.of([clip_fix(1.0, "why")], [], "", *arms)


def test_the_interval_is_student_s_over_seeds() -> None:
    half = (
        4.302652729696142 / 3**0.5
    )  # the 97.5 % point for two degrees of freedom is sqrt(2) * 0.95 / sqrt(1 - 0.95**2)
    found = Interval.of([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - half, 2 + half))
    assert Interval.of([1.0] * 30).low == 1.0


def test_one_seed_has_no_interval_and_nothing_finite_no_mean() -> None:
    one = Interval.of([1.5])
    assert (one.mean, math.isnan(one.low)) == (1.5, True)
    assert math.isnan(Interval.of([1.0, math.nan]).mean)


@pytest.mark.parametrize(
    ("without", "with_fix", "verdict", "words"),
    [
        ([2.0, 2.1, 2.2], [1.0, 1.1, 1.19], "better", "Take it: after 8 steps the loss is 1 lower"),
        ([1.0, 1.1, 1.19], [2.0, 2.1, 2.2], "worse", "Leave it: after 8 steps the loss is 1 higher"),
        ([2.0, 2.1, 2.2], [1.0, 3.0, 2.5], "unclear", "Too close to call"),
        ([2.0], [1.0], "unclear", "one seed, so nothing says how much of that is chance"),
        ([2.0, math.nan], [2.0, 2.0], "better", "1 of 2 runs diverge without it and 0 with it"),
        ([2.0, 2.0], [2.0, 9.0], "worse", "0 of 2 runs diverge without it and 1 with it"),
        ([math.inf, math.nan], [math.nan, math.inf], "unclear", "2 of 2 runs diverge without it and 2 with it"),
    ],
    ids=["lower", "higher", "mixed", "one-seed", "keeps-from-diverging", "diverges", "both-diverge"],
)
def test_the_verdict_says_what_the_numbers_allow(
    without: list[float], with_fix: list[float], verdict: str, words: str
) -> None:
    found = report(without, with_fix)
    assert found.verdict == verdict
    assert words in found.sentence
    assert found.sentence in " ".join(str(found).split())


def test_the_final_loss_is_that_of_the_last_quarter_at_most_twenty_steps() -> None:
    assert Arm.of([[4.0, 3.0, 2.0, 1.0]], ()).final == (1.0,)
    assert Arm.of([[float(100 - step) for step in range(100)]], ()).final == (10.5,)
