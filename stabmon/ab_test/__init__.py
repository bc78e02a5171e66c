"""A fix on trial: the same model trained for a few steps with it and without it, on the same data, side by side.

A race compares sigmoid with softmax in the same model in the same way.
"""

from stabmon.ab_test.model import trial
from stabmon.ab_test.race_report import RaceReport, Recipe, Standing
from stabmon.ab_test.report import Arm, Interval, TrialReport
from stabmon.ab_test.run import trial_of_run
from stabmon.ab_test.softmax_race import race, race_of_run

__all__ = [
    "Arm",
    "Interval",
    "RaceReport",
    "Recipe",
    "Standing",
    "TrialReport",
    "race",
    "race_of_run",
    "trial",
    "trial_of_run",
]
