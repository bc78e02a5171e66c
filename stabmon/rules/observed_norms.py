"""Norms that a model shows in its first sample, whatever its modules are called.

A norm gives its output one size, so queries and keys under QK norm, or a branch under hybrid norm, have the same rms in
every head and layer while the gains are one. Nothing else does, to ``TOLERANCE``.
"""

import math

import numpy as np

from stabmon.records import Attention
from stabmon.rules.view import Run

TOLERANCE = 0.005
"""Relative distance from that size; bf16 rounds an element by 0.004 and a norm of many of them by far less."""


def has_qk_norm(run: Run, attention: Attention) -> bool:
    """Return whether queries and keys are normed: stated, or their first norms are √head_dim (or 1) in all heads."""
    if attention.qk_norm:
        return True
    norms = [_first(run, metric, attention.layer) for metric in ("query_norm", "key_norm")]
    return any(all(_is_all(norm, size) for norm in norms) for size in (math.sqrt(attention.head_dim), 1.0))


def has_hybrid_norm(run: Run, attention: Attention) -> bool:
    """Return whether branches are normed before they are added: stated, or all have had an rms of 1 at first."""
    if attention.hybrid_norm:
        return True
    layers = [other.layer for other in run.info.model.attentions]
    return len(layers) > 1 and all(_is_all(_branch_rms(run, layer), 1.0) for layer in layers)


def _branch_rms(run: Run, layer: str) -> np.ndarray:
    ratio, stream = _first(run, "branch_ratio", layer), _first(run, "residual_in", layer)
    return ratio * stream if ratio.size == stream.size else np.empty(0)


def _first(run: Run, metric: str, layer: str) -> np.ndarray:
    series = run.series(metric)
    return np.asarray(series.first[series.within(layer)])


def _is_all(values: np.ndarray, size: float) -> bool:
    return values.size > 0 and bool((np.abs(values / size - 1) < TOLERANCE).all())
