"""A fix as a change to the configuration of a run: every kind has one. No torch."""

import difflib
import math
from typing import Any

import yaml

from stabmon.config import RunConfig, override
from stabmon.errors import ConfigError, FixError
from stabmon.fixes.record import Fix, FixKind

_WIDER = {"fp16": 0, "bf16": 1, "fp32": 2}
"""Precisions from the one that overflows first."""


def apply_to_config(fix: Fix, config: RunConfig) -> RunConfig:
    """Return ``config`` with ``fix`` carried out from step 0.

    A configuration has one bias and one LayerScale gain for all layers, so the fix of one layer becomes that of the
    model; a learnable bias goes on learning from the new value. What belongs with a fix is carried out after it.

    Raises:
        FixError: the configuration has already what the fix would add, softmax is given a bias, or the value is not one
            that a configuration takes.
    """
    for part in fix.parts:
        changes = _changes(part, config)
        try:
            config = override(config, changes)
        except ConfigError as error:
            raise FixError(f"{part} gives no valid configuration: {error}") from error
    return config


def config_diff(before: RunConfig, after: RunConfig) -> str:
    """Return what differs between two configurations as a unified diff of their YAML; empty where nothing does."""
    old, new = (_lines(config) for config in (before, after))
    return "".join(difflib.unified_diff(old, new, f"{before.name}.yaml", f"{after.name}.yaml with the fix", n=0))


def _lines(config: RunConfig) -> list[str]:
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).splitlines(keepends=True)


def _changes(fix: Fix, config: RunConfig) -> dict[str, Any]:
    model, training = config.model, config.training
    match fix.kind:
        case FixKind.BIAS | FixKind.LEARNABLE_BIAS:
            return _bias(fix, config)
        case FixKind.QK_NORM:
            return {"model.qk_norm": _new(fix, model.qk_norm, False, True)}
        case FixKind.LAYER_SCALE:
            return {"model.layer_scale": _new(fix, model.layer_scale, None, _value(fix))}
        case FixKind.HYBRID_NORM:
            return {"model.hybrid_norm": _new(fix, model.hybrid_norm, False, True)}
        case FixKind.PRE_NORM:
            return {"model.norm": _new(fix, model.norm, "post", "pre")}
        case FixKind.POSITION:
            return {"model.position": _other(fix, model.position)} | _bias_beside(fix, config)
        case FixKind.LEARNING_RATE:
            return {"training.learning_rate": training.learning_rate * _value(fix)}
        case FixKind.WARMUP:
            return {"training.warmup": _longer(fix, training.warmup)}
        case FixKind.CLIP:
            return {"training.clip": _tighter(fix, training.clip)}
        case FixKind.PRECISION:
            return {"training.precision": _wider(fix, training.precision)}
        case FixKind.LENGTH:
            return _of_length(fix, config)


def _bias(fix: Fix, config: RunConfig) -> dict[str, Any]:
    if config.model.attention == "softmax":
        raise FixError(f"{config.name} has softmax attention, which has no bias to set; take another fix")
    if fix.kind is FixKind.BIAS:
        return _with_bias(_value(fix), config)
    fixed = config.model.bias if isinstance(config.model.bias, float | int) else config.model.bias_start
    start = fixed if fix.value is None else fix.value
    return {"model.bias": "learnable", "model.bias_start": None if start is None else float(start)}


def _with_bias(value: float, config: RunConfig) -> dict[str, Any]:
    learns = config.model.bias == "learnable"
    return {"model.bias": "learnable", "model.bias_start": value} if learns else {"model.bias": value}


def _bias_beside(fix: Fix, config: RunConfig) -> dict[str, Any]:
    """Return the bias that goes with a scheme of positions; softmax takes the scheme alone."""
    return {} if fix.value is None or config.model.attention == "softmax" else _with_bias(fix.value, config)


def _of_length(fix: Fix, config: RunConfig) -> dict[str, Any]:
    """Return another length with the bias that goes with it: a number moves with -log n, "length" does so by itself."""
    model, length = config.model, round(_value(fix))
    if length == model.context:
        raise FixError(f"the configuration is for {length} keys already; take another fix of the finding")
    moved, changed = math.log(model.context / length), {"model.context": length}
    if isinstance(model.bias, float | int):
        return changed | {"model.bias": model.bias + moved}
    return changed if model.bias_start is None else changed | {"model.bias_start": model.bias_start + moved}


def _new(fix: Fix, there: object, without: object, wanted: object) -> object:
    if there != without:
        raise FixError(
            f"the configuration has {fix.kind.replace('_', ' ')} already ({there}); take another fix of the finding"
        )
    return wanted


def _other(fix: Fix, there: str) -> str:
    if fix.setting is None or fix.setting == there:
        raise FixError(f"a {fix.kind} fix needs a setting other than the present {there!r}, got {fix.setting!r}")
    return fix.setting


def _wider(fix: Fix, there: str) -> str:
    wanted = _other(fix, there)
    if _WIDER.get(wanted, 3) < _WIDER[there]:
        raise FixError(f"the precision is {there} already, which overflows later than {wanted}; take another fix")
    return wanted


def _longer(fix: Fix, there: int) -> int:
    if _value(fix) <= there:
        raise FixError(f"the warm-up is {there} steps already, the fix asks for {fix.value:g}; take another fix")
    return round(_value(fix))


def _tighter(fix: Fix, there: float | None) -> float:
    if there is not None and there <= _value(fix):
        raise FixError(f"gradients are clipped at {there:g} already, the fix asks for {fix.value:g}; take another fix")
    return _value(fix)


def _value(fix: Fix) -> float:
    if fix.value is None:
        raise FixError(f"a {fix.kind.value} fix needs a value, got none; set Fix.value")
    return fix.value
