"""Findings on the terminal: one line when something opens, many layers of one rule together, no repetition."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from stabmon.findings import Finding, Key
from stabmon.names import natural_key
from stabmon.records import RunInfo, RunState, Severity
from stabmon.series import Floats, Layout

LINES_A_RULE = 5
"""Lines that one rule may print in a run."""


class ConsoleSink:
    """Prints findings from ``least`` severity on to ``console``, standard error unless one is given."""

    name = "console"
    advice = "findings are not printed; the store keeps them"

    def __init__(self, console: Console | None = None, *, least: Severity = Severity.INFO) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._least = least
        self._seen: set[Key] = set()
        self._lines: Counter[str] = Counter()
        self._run = ""

    def start(self, info: RunInfo, layout: Layout) -> None:
        """Remember the run's name; nothing is printed."""
        self._run = info.name

    def sample(self, step: int, time: float, values: Floats) -> None:
        """Print nothing."""

    def findings(self, changed: Sequence[Finding]) -> None:
        """Print what opened, one line a rule and step, symptoms after causes; what grew or cleared is not printed."""
        opened: dict[tuple[str, int, str], list[Finding]] = {}
        for finding in changed:
            if finding.key not in self._seen and finding.severity.rank >= self._least.rank:
                self._seen.add(finding.key)
                cause = finding.follows[0] if finding.follows else ""
                opened.setdefault((finding.code, finding.opened, cause), []).append(finding)
        for group in sorted(opened.values(), key=lambda group: (bool(group[0].follows), -group[0].severity.rank)):
            self._print(group)

    def close(self, state: RunState) -> None:
        """Say how many lines were held back, if any."""
        held = {code: lines - LINES_A_RULE for code, lines in self._lines.items() if lines > LINES_A_RULE}
        if held:
            more = ", ".join(f"{count} more of {code}" for code, count in held.items())
            self._console.print(Text(f"stabmon: {more}: see `stabmon findings` for {self._run}"), soft_wrap=True)

    def _print(self, group: Sequence[Finding]) -> None:
        worst = group[0]
        self._lines[worst.code] += 1
        if self._lines[worst.code] > LINES_A_RULE:
            return
        line = Text("stabmon: ")
        if worst.follows:
            line.append("  └ ")
        line.append(f"{worst.severity.value} {worst.code} {worst.name}", style=worst.severity.style)
        line.append(f" at step {worst.opened}{_where(group)}: {worst.message}.")
        if worst.follows:
            line.append(f" It follows from {worst.follows[0]} of step {worst.follows[2]}.")
        elif worst.fixes:
            line.append(f" Fix: {worst.fix}.", style="bold")
        if self._lines[worst.code] == LINES_A_RULE:
            line.append(f" (more of {worst.code} are not printed)", style="dim")
        self._console.print(line, soft_wrap=True)


def _where(group: Sequence[Finding]) -> str:
    """Name the layers of ``group``: `` in layers.3 head 5``, or the first of several and their number."""
    layers = sorted((finding.layer for finding in group if finding.layer), key=natural_key)
    if not layers:
        return ""
    if len(layers) == 1:
        head = group[0].head
        return f" in {layers[0]}" + (f" head {head}" if head is not None else "")
    return f" in {len(layers)} layers ({layers[0]} to {layers[-1]}), such as {group[0].layer}"
