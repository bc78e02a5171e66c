"""Findings on the terminal: one line when something opens, many layers of one rule together, no repetition."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from stabmon.findings import Entry, Finding, Key, digest
from stabmon.records import RunInfo, RunState, Severity
from stabmon.series import Floats, Layout
from stabmon.sinks.terminal import StandardError

LINES_A_RULE = 5
"""Lines that one rule may print in a run."""


class ConsoleSink:
    """Prints findings from ``least`` severity on to ``console``, standard error unless one is given."""

    name = "console"
    advice = "findings are not printed; the store keeps them"

    def __init__(self, console: Console | None = None, *, least: Severity = Severity.INFO) -> None:
        self._console = console or StandardError()
        self._least = least
        self._seen: set[Key] = set()
        self._lines: Counter[str] = Counter()
        self._run = ""

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Remember the run's name; nothing is printed."""
        self._run = info.name

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Print nothing."""

    def resumed(self, findings: Sequence[Finding]) -> None:
        """Remember the findings of the run's earlier part, which were printed then."""
        self._seen.update(finding.key for finding in findings)

    def findings(self, changed: Sequence[Finding]) -> None:
        """Print what opened, a line a group, symptoms after their cause; what grew or cleared is not printed."""
        opened = [one for one in changed if one.key not in self._seen and one.severity.rank >= self._least.rank]
        self._seen.update(finding.key for finding in opened)
        for entry in digest(opened).entries:
            self._print(entry)
            for symptom in entry.symptoms:
                self._print(symptom)

    def close(self, state: RunState) -> None:
        """Print the number of lines that were held back, if any."""
        held = {code: lines - LINES_A_RULE for code, lines in self._lines.items() if lines > LINES_A_RULE}
        if held:
            more = ", ".join(f"{count} more of {code}" for code, count in held.items())
            self._console.print(Text(f"stabmon: {more}: see `stabmon findings` for {self._run}"), soft_wrap=True)

    def _print(self, entry: Entry) -> None:
        self._lines[entry.code] += 1
        if self._lines[entry.code] > LINES_A_RULE:
            return
        line = Text("stabmon:   └ " if entry.follows else "stabmon: ")
        line.append(entry.headline, style=entry.severity.style)
        line.append(f" {entry.place_and_time}: {entry.message}.")
        if entry.follows:
            line.append(f" It follows from {entry.follows[0]} of step {entry.follows[2]}.")
        elif entry.fix:
            line.append(f" Fix: {entry.fix}.", style="bold")
        if self._lines[entry.code] == LINES_A_RULE:
            line.append(f" (more of {entry.code} are not printed)", style="dim")
        self._console.print(line, soft_wrap=True)
