"""A fix on trial: the same model trained for a few steps with it and without it, on the same data, side by side."""

from stabmon.ab_test.model import trial
from stabmon.ab_test.report import Arm, Interval, TrialReport
from stabmon.ab_test.run import trial_of_run

__all__ = ["Arm", "Interval", "TrialReport", "trial", "trial_of_run"]
