"""Rules: pure functions of a run's series that flag what is wrong, where, since when, and how to fix it. No torch."""

from stabmon.rules import (
    attention,
    attention_growth,
    attention_heads,
    behaviour,
    configuration,
    first_sample,
    gallery,
    gradient,
    gradient_size,
    loss,
    numeric,
    residual,
    update,
)
from stabmon.rules.engine import Engine
from stabmon.rules.limits import Limits
from stabmon.rules.registry import (
    Explanation,
    Observation,
    Rule,
    RuleDocument,
    catalogue,
    document,
    find,
    markdown_table,
    rule,
)
from stabmon.rules.replay import replay
from stabmon.rules.user_rules import load, resolve
from stabmon.rules.view import Hit, MetricView, Run

__all__ = [
    "Engine",
    "Explanation",
    "Hit",
    "Limits",
    "MetricView",
    "Observation",
    "Rule",
    "RuleDocument",
    "Run",
    "attention",
    "attention_growth",
    "attention_heads",
    "behaviour",
    "catalogue",
    "configuration",
    "document",
    "find",
    "first_sample",
    "gallery",
    "gradient",
    "gradient_size",
    "load",
    "loss",
    "markdown_table",
    "numeric",
    "replay",
    "residual",
    "resolve",
    "rule",
    "update",
]
