"""What a fix is expected to do, as a number: the metric it moves, where it stands and where it should go. No torch."""

import math
from collections.abc import Mapping

from stabmon.fixes.record import Effect, Fix, FixKind
from stabmon.fixes.row_mass import row_mass_at
from stabmon.records import Attention

_LARGEST = {"fp16": 65504.0, "bf16": 3.3895314e38, "fp32": 3.4028235e38}
"""Largest number of each precision."""
WIDE = 2.0
"""Standard deviation of the logits that a QK norm keeps at most: wider ones are what it is to mend."""


def expected(fix: Fix, attention: Attention | None, measured: Mapping[str, float]) -> Effect | None:
    """Return what ``fix`` is expected to do to a layer (or run) that stands as ``measured`` says, by metric.

    None where nothing that was measured says so: no finite number of the metric that the fix moves.
    """
    known = {metric: value for metric, value in measured.items() if math.isfinite(value)}
    match fix.kind:
        case FixKind.BIAS | FixKind.LEARNABLE_BIAS:
            return _of_bias(fix, attention, known)
        case FixKind.QK_NORM:
            return _of_qk_norm(fix, attention, known)
        case FixKind.LAYER_SCALE:
            return _scaled("branch_ratio", fix.value, known)
        case FixKind.HYBRID_NORM:
            return _of_hybrid_norm(known)
        case FixKind.LEARNING_RATE:
            return _scaled("learning_rate", fix.value, known)
        case FixKind.WARMUP:
            return _scaled("learning_rate", 1 / fix.value if fix.value else None, known)
        case FixKind.CLIP:
            norm = known.get("total_gradient_norm")
            return (
                None
                if norm is None or fix.value is None
                else _effect("total_gradient_norm", norm, min(norm, fix.value))
            )
        case FixKind.PRECISION:
            return (
                _effect("largest_number", _LARGEST["fp16"], _LARGEST[fix.setting]) if fix.setting in _LARGEST else None
            )
    return None


def _effect(metric: str, before: float, after: float) -> Effect:
    return Effect(metric=metric, before=before, after=after)


def _scaled(metric: str, factor: float | None, known: Mapping[str, float]) -> Effect | None:
    before = known.get(metric)
    return None if before is None or factor is None else _effect(metric, before, before * factor)


def _of_bias(fix: Fix, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
    mass, bias = known.get("row_mass"), known.get("bias")
    wanted = bias if fix.value is None else fix.value
    if mass is None or bias is None or wanted is None:
        return None
    best = known.get("best_bias")
    if best is not None and abs(best - wanted) < 0.02:
        return _effect("row_mass", mass, 1.0)
    alibi = attention is not None and attention.position == "alibi"
    spread = (0.0, 0.0) if alibi else (known.get("logit_mean", 0.0), known.get("logit_std", 0.0))
    return _effect("row_mass", mass, row_mass_at(wanted, mass, bias, *spread))


def _of_qk_norm(fix: Fix, attention: Attention | None, known: Mapping[str, float]) -> Effect | None:
    """Normed queries and keys of gain g bound a logit by g²√head_dim, and give directions at random a spread of g².

    None where the gain is the one that keeps the spread: it only holds it there.
    """
    std, largest = known.get("logit_std"), known.get("logit_max")
    power = fix.value**2 if fix.value is not None else min(std or 1.0, WIDE)
    if attention is not None and largest is not None and largest > power * math.sqrt(attention.head_dim):
        return _effect("logit_max", largest, power * math.sqrt(attention.head_dim))
    return None if std is None or std == power else _effect("logit_std", std, power)


def _of_hybrid_norm(known: Mapping[str, float]) -> Effect | None:
    ratio, stream = known.get("branch_ratio"), known.get("residual_in")
    return None if ratio is None or not stream else _effect("branch_ratio", ratio, 1.0 / stream)


def with_effect(fix: Fix, attention: Attention | None, measured: Mapping[str, float]) -> Fix:
    """Return ``fix`` with what it is expected to do; one that says so already is returned as it is."""
    return fix if fix.effect is not None else fix.model_copy(update={"effect": expected(fix, attention, measured)})
