"""From observations to findings: a finding opens, grows, clears, and may open again, which it counts.

The engine is fed one sample at a time, live and in a replay alike, so both end with the same findings.
"""

import logging
import traceback
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stabmon.errors import ConfigError
from stabmon.findings import Finding
from stabmon.names import natural_key
from stabmon.records import RunInfo
from stabmon.rules.causes import Causes
from stabmon.rules.judge import Judge, Transition
from stabmon.rules.limits import Limits
from stabmon.rules.live_finding import LiveFinding
from stabmon.rules.registry import Rule, catalogue, find
from stabmon.rules.view import Run
from stabmon.series import Floats, Layout, Logged

if TYPE_CHECKING:
    from stabmon.store import RunReader

NON_FINITE = "NUM001"
"""The rule that reports values that are not finite; where it runs, other rules leave them to it."""
AT_ONCE = 1024
"""Samples of a stored run that are held in memory together."""
logger = logging.getLogger("stabmon")


class Engine:
    """Runs every rule on each sample and keeps the run's findings.

    ignore: codes (or names) of rules that are not run, in addition to those of ``limits``.
    rules: a user's own rules, as ``stabmon.rules.load`` reads them, in addition to the catalogue.

    Raises:
        ConfigError: ``ignore`` names a rule, or ``limits`` layers, that do not exist; a rule's code is taken.
    """

    def __init__(
        self,
        info: RunInfo,
        layout: Layout,
        limits: Limits | None = None,
        ignore: Collection[str] = (),
        rules: Sequence[Rule] = (),
    ) -> None:
        limits = limits or Limits()
        known = catalogue(rules)
        ignored = {find(code, known).code for code in (*limits.ignore, *ignore)}
        active = [rule for rule in known if rule.code not in ignored]
        layers = sorted({column.layer for column in layout.columns if column.layer}, key=natural_key)
        _check_patterns(limits, layers)
        finite_only = any(rule.code == NON_FINITE for rule in active)
        self._causes = Causes()
        self._judges = [
            Judge(rule, limits, layers, self._causes, leaves_non_finite=finite_only) for rule in _in_order(active)
        ]
        self._run = Run(info, layout)
        self.running: str | None = None
        """Code of the rule that is being evaluated."""
        self.failures: dict[str, str] = {}
        """Code of a rule that raised and was dropped, and what it raised."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every finding so far, in the order in which they opened."""
        return tuple(finding.record for finding in self._causes.findings)

    def observe(self, step: int, values: Floats) -> list[Finding]:
        """Take the sample of ``step``, one row of the layout, float32 [width]; return what has changed."""
        self._run.add(step, values)
        changed: list[LiveFinding] = []
        for judge in tuple(self._judges):
            self.running = judge.rule.code
            try:
                with np.errstate(all="ignore"):  # NaN, infinities and what they make are data here, not warnings
                    changed += self._judged(judge)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a rule that fails, or exits, must not stop a training
                self._drop(judge, step, error)
        self.running = None
        return [finding.record for finding in dict.fromkeys(changed)]

    def logged(self, values: Sequence[Logged]) -> None:
        """Take what was logged since the last sample; the rules see it at the next one."""
        for one in values:
            self._run.logged.keep(one)

    def catch_up(self, reader: "RunReader") -> None:
        """Take all samples of a stored run, so that baselines and open findings are those of the run that goes on.

        Raises:
            StoreError: the run cannot be read.
        """
        cursor, more = 0, True
        while more:
            new = reader.after(cursor, limit=AT_ONCE)
            for at, (step, row) in enumerate(zip(new.steps, new.rows, strict=True)):
                self.logged(new.before(at))
                self.observe(int(step), row)
            cursor, more = new.cursor, len(new.steps) > 0
        self.logged(new.before(0))

    def _drop(self, judge: Judge, step: int, error: BaseException) -> None:
        code, what = judge.rule.code, f"{type(error).__name__}: {error}".removesuffix(": ")
        last = traceback.extract_tb(error.__traceback__)[-1:]
        where = "".join(f" in {Path(frame.filename).name}, line {frame.lineno}" for frame in last)
        logger.error("rule %s failed at step %d and is switched off for this run: %s%s", code, step, what, where)
        self._judges.remove(judge)
        self.failures[code] = f"{what} (at step {step})"

    def _judged(self, judge: Judge) -> list[LiveFinding]:
        changed: list[LiveFinding] = []
        for finding, change in judge.look(self._run):
            others: list[LiveFinding] = []
            if change is Transition.OPENED:
                others = self._causes.opened(finding, self._run.samples)
            elif change is Transition.REOPENED:
                others = self._causes.reopened(finding)
            elif change is Transition.ESCALATED:
                others = self._causes.escalated(finding, self._run.samples)
            changed += [finding, *others]
        return changed


def _in_order(rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules in the order of the codes, but each after its possible causes."""
    waiting, placed = sorted(rules, key=lambda rule: rule.code), []
    while waiting:
        codes = {rule.code for rule in waiting}
        free = next((rule for rule in waiting if not codes & set(rule.symptom_of) - {rule.code}), waiting[0])
        waiting.remove(free)
        placed.append(free)
    return placed


def _check_patterns(limits: Limits, layers: Sequence[str]) -> None:
    for pattern in limits.layers:
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            near = get_close_matches(pattern, layers, n=1, cutoff=0.3)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(layers) or 'none'}"
            raise ConfigError(f"no layer is called {pattern!r}, for which limits are set; {hint}")
