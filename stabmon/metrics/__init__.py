"""The glossary of what stabmon records: one declaration a metric, from which everything else about it derives.

To add one, write its ``Metric`` into ``attention``, ``block`` or ``run``, or call ``register``. Where its formula needs
a number that no hook measures yet, declare a ``Raw`` beside it and let a hook in ``stabmon.hooks`` write it to
``recording.buffer[slots[name]]``.
"""

from stabmon.metrics.declaration import (
    DataPath,
    Metric,
    OverHeads,
    OverProcesses,
    Per,
    Place,
    Raw,
    Reduction,
    Shown,
    When,
)
from stabmon.metrics.document import MetricDocument, document
from stabmon.metrics.registry import METRICS, RAW, describe, inputs, is_logged, on_path, register, unregister

__all__ = [
    "METRICS",
    "RAW",
    "DataPath",
    "Metric",
    "MetricDocument",
    "OverHeads",
    "OverProcesses",
    "Per",
    "Place",
    "Raw",
    "Reduction",
    "Shown",
    "When",
    "describe",
    "document",
    "inputs",
    "is_logged",
    "on_path",
    "register",
    "unregister",
]
