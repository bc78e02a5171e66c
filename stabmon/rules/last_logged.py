"""Numbers that a training logged between samples, as the rules see them: with the next sample."""

import math

from stabmon.series import Floats, Layout, Logged, is_missing


class LastLogged:
    """Numbers that were logged since the last sample: of each metric the latest, or the first that is not finite."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._kept: dict[str, Logged] = {}
        self.steps: dict[str, int] = {}
        """Step of each number that the newest sample has from before it, by metric."""
        self.steps_before: dict[str, int] = {}
        """The same of the sample before."""

    def keep(self, value: Logged) -> None:
        """Keep ``value`` for the next sample."""
        before = self._kept.get(value.metric)
        if before is None or before.step > value.step or math.isfinite(before.value):
            self._kept[value.metric] = value

    def fill(self, step: int, row: Floats) -> None:
        """Give the sample ``row`` [width] of ``step`` what was logged: where it has none, or that is not finite."""
        self.steps_before, self.steps = self.steps, {}
        for metric, one in self._kept.items():
            for column in self._layout.of_metric(metric) if one.step < step else ():
                if is_missing(row[column.start : column.start + 1]).all() or not math.isfinite(one.value):
                    row[column.start] = one.value
                    self.steps[metric] = one.step
        self._kept = {}
