"""Parts of a finding's sentence: the value against its limit, and the other metrics of the place."""

import math

from stabmon.formatting import number, words
from stabmon.metrics import METRICS
from stabmon.rules.view import Hit, Run
from stabmon.series import over_heads


def over_limit(hit: Hit) -> str:
    """Return "row mass 256 in all 4 heads, limit 10"."""
    return f"{words(hit.metric)} {number(hit.value)}{hit.where}, limit {number(hit.limit)}"


def beside(run: Run, layer: str | None, *metrics: str) -> str:
    """Return "; attention norm 531; row mass 256": one number a layer for each metric measured there."""
    text = ""
    for metric in metrics:
        values = run.series(metric).of(layer)
        if values.size and metric in METRICS:
            value = float(over_heads(metric, values))
            text += f"; {words(metric)} {number(value)}" if math.isfinite(value) else ""
    return text
