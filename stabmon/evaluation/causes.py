"""Which settings mend a failed run: seen in runs that differ from it in one setting alone and ended well."""

from collections.abc import Iterable, Mapping
from typing import Any

from stabmon.evaluation.outcome import Outcome

SETTINGS = {
    "model.bias": "bias",
    "model.bias_start": "bias",
    "model.qk_norm": "qk_norm",
    "model.layer_scale": "layer_scale",
    "model.hybrid_norm": "hybrid_norm",
    "model.norm": "pre_norm",
    "model.position": "position",
    "training.learning_rate": "learning_rate",
    "training.warmup": "warmup",
    "training.clip": "clip",
    "training.precision": "precision",
    "training.bad_batch": "data",
    "training.evaluate_length": "length",
}
"""Settings of a configuration and the setting that each belongs to, as fixes call it."""
_SAME = ("name", "training.seed", "monitor.dense", "monitor.every", "monitor.rows")


def turned(before: Outcome, after: Outcome) -> str | None:
    """Return the setting in which two runs differ; None where they differ in several, in none, or in something else."""
    old, new = _flat(before.config), _flat(after.config)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} - set(_SAME)
    settings = {SETTINGS.get(key, key) for key in changed}
    return settings.pop() if len(settings) == 1 and changed <= SETTINGS.keys() else None


def settings_that_fix(run: Outcome, healthy: Iterable[Outcome]) -> tuple[str, ...]:
    """Return the settings in which one of the ``healthy`` runs differs from ``run`` and in nothing else."""
    return tuple(sorted({setting for other in healthy if (setting := turned(run, other)) is not None}))


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found
