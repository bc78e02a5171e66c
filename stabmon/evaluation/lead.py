"""The step at which the loss itself shows a failure, so that a finding can be called early or late.

The loss shows it from the first step on at which a loss is not finite, or at which the mean of the last 20 losses has
been above the reference's at the same step by more than the margin and stays so for 20 steps. That asks for a reference
run, which a user does not have; it is the earliest step at which a loss curve could show it.
"""

import math
from collections.abc import Sequence

import numpy as np

from stabmon.evaluation.outcome import WINDOW, Outcome, smooth


def shown(run: Outcome, references: Sequence[Outcome], margin: float) -> int:
    """Return the first step at which the loss shows the failure of ``run``; its number of steps where it never does.

    references: the replicates of the configuration that its group is held to.
    """
    broken = next((step for step, loss in enumerate(run.losses) if not math.isfinite(loss)), len(run.losses))
    if not references:
        return broken
    same = [reference for reference in references if reference.seed == run.seed] or references
    usual = np.mean([smooth(reference.losses) for reference in same], axis=0)
    steps = min(len(usual), len(run.losses))
    above = smooth(run.losses)[:steps] > usual[:steps] + margin
    for step in np.flatnonzero(above):
        if above[step : step + WINDOW].all():
            return min(int(step), broken)
    return broken
