"""How findings write numbers: three digits, thousands with commas, never an exponent that a reader must unfold."""

import math

from stabmon.metrics import METRICS
from stabmon.rules.view import Hit, Run
from stabmon.series import over_heads


def number(value: float) -> str:
    """Return ``value`` for a sentence: 33,683, 256, 0.0153, 2.3e-06, Inf, NaN."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if abs(value) >= 1e7 or 0 < abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def over_limit(hit: Hit) -> str:
    """Return "row mass 256 in all 4 heads, limit 10"."""
    return f"{title(hit.metric)} {number(hit.value)}{hit.where}, limit {number(hit.limit)}"


def title(metric: str) -> str:
    """Return a metric's name as words: ``row_mass`` is "row mass"."""
    return metric.replace("_", " ")


def beside(run: Run, layer: str | None, *metrics: str) -> str:
    """Return "; attention norm 531; row mass 256": one number a layer for each metric that was measured there."""
    text = ""
    for metric in metrics:
        values = run.series(metric).of(layer)
        if values.size and metric in METRICS:
            value = float(over_heads(metric, values))
            text += f"; {title(metric)} {number(value)}" if math.isfinite(value) else ""
    return text
