"""Fixes of one kind, with the values that fit this model at its start. No torch."""

import math

from stabmon.config import RunConfig
from stabmon.errors import FixError
from stabmon.fixes import suggest
from stabmon.fixes.effect import with_effect
from stabmon.fixes.record import Fix, FixKind
from stabmon.preflight_check.report import LayerStart, PreflightReport
from stabmon.records import Attention

_WHY = "as asked"


def fixes_of_kind(
    kind: FixKind, config: RunConfig, report: PreflightReport, value: float | None = None
) -> tuple[Fix, ...]:
    """Return the fixes of ``kind`` for the run ``config``: one a layer, or one where it is of the training.

    ``value`` is what ``Fix.value`` says of the kind; None takes the measured best bias, a LayerScale gain by depth,
    QK norm with gain 1, a learning rate of 0.3 times the present, a warm-up of twice the present or a tenth of the run,
    clipping at 1 or half the present, and the evaluation's length or twice the present.

    Raises:
        FixError: the run computes in fp32 already.
    """
    if kind.of_training:
        return (_of_training(kind, config, value),)
    rows = {row.layer: row for row in report.rows}
    made = (_of_layer(kind, one, rows[one.layer], len(rows), value, config) for one in report.map.attentions)
    measured = (row.numbers for row in rows.values())
    return tuple(map(with_effect, made, report.map.attentions, measured))


def _of_layer(
    kind: FixKind, one: Attention, row: LayerStart, depth: int, value: float | None, config: RunConfig
) -> Fix:
    best = row.best_bias if math.isfinite(row.best_bias) else -math.log(config.model.context)
    match kind:
        case FixKind.BIAS:
            return suggest.bias_fix(one, round(best if value is None else value, 2), _WHY)
        case FixKind.LEARNABLE_BIAS:
            return suggest.learnable_bias_fix(one, _WHY, round(best if value is None else value, 2))
        case FixKind.QK_NORM:
            return suggest.qk_norm_fix(one, _WHY, 1.0 if value is None else value)
        case FixKind.LAYER_SCALE:
            return suggest.layer_scale_fix(one, suggest.layer_scale_gain(depth) if value is None else value, _WHY)
        case FixKind.HYBRID_NORM:
            return suggest.hybrid_norm_fix(one, _WHY)
        case FixKind.PRE_NORM:
            return suggest.pre_norm_fix(one, _WHY)
        case _:
            return suggest.position_fix(one, "rope" if config.model.position == "alibi" else "alibi", _WHY)


def _of_training(kind: FixKind, config: RunConfig, value: float | None) -> Fix:
    training = config.training
    known = {"learning_rate": training.learning_rate}
    match kind:
        case FixKind.LEARNING_RATE:
            return with_effect(suggest.learning_rate_fix(0.3 if value is None else value, _WHY), None, known)
        case FixKind.WARMUP:
            steps = max(2 * training.warmup, training.steps // 10, 1) if value is None else round(value)
            return with_effect(suggest.warmup_fix(steps, _WHY), None, known)
        case FixKind.CLIP:
            present = 2.0 if training.clip is None else training.clip
            return suggest.clip_fix(present / 2 if value is None else value, _WHY)
        case FixKind.LENGTH:
            longer = training.evaluate_length or 2 * config.model.context
            return suggest.length_fix(longer if value is None else value, _WHY)
        case _:
            if training.precision == "fp32":
                raise FixError(f"{config.name} computes in fp32 already, and nothing is wider; take another fix")
            return suggest.precision_fix("bf16" if training.precision == "fp16" else "fp32", _WHY)
