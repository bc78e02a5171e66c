"""The state of a watched training in a few lines: for a notebook, or ``rich.print``."""

from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from stabmon.findings import digest
from stabmon.findings.description import described
from stabmon.formatting import plural
from stabmon.monitor.map_table import map_table

if TYPE_CHECKING:
    from stabmon.monitor.monitor import Monitor


def summary(monitor: "Monitor") -> Group:
    """Return the run's state in a sentence, its findings, what is missing with the reason, and the model's map."""
    attentions = len(monitor.map.attentions)
    found = digest(monitor.findings, layers=attentions, started=monitor.steps > 0)
    name = "" if monitor.path is None else f" of {monitor.path}"
    headline = f"{found.health.title} ({plural(monitor.steps, 'step')}{name}): {found.health.text}"
    failures = [Text(f"Not recorded: {failure}") for failure in monitor.failures]
    table = [map_table(monitor.map)] if attentions else []
    return Group(Text(headline), *described(found.entries), *failures, *table)
