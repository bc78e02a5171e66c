"""Settings that fix a failed run: seen in runs that differ from it in one setting alone and ended well."""

from collections.abc import Iterable, Mapping
from typing import Any

from stabmon.evaluation.outcome import Outcome
from stabmon.fixes import registry

_DATA = {"training.bad_batch": "data"}
"""Settings of a configuration that no fix changes."""
_SAME = ("name", "training.seed", "monitor.dense", "monitor.every", "monitor.rows")


def settings() -> dict[str, str]:
    """Return the setting that each key of a configuration belongs to, as fixes call it."""
    return {key: kind.family for kind in registry.kinds() for key in kind.keys} | _DATA


def changed_setting(before: Outcome, after: Outcome) -> str | None:
    """Return the setting in which two runs differ; None where they differ in several, in none, or in something else."""
    old, new = _flat(before.config), _flat(after.config)
    changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} - set(_SAME)
    known = settings()
    found = {known.get(key, key) for key in changed}
    return found.pop() if len(found) == 1 and changed <= known.keys() else None


def settings_that_fix(run: Outcome, healthy: Iterable[Outcome]) -> tuple[str, ...]:
    """Return the settings in which one of the ``healthy`` runs differs from ``run`` and in nothing else."""
    return tuple(sorted({setting for other in healthy if (setting := changed_setting(run, other)) is not None}))


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = value
    return found
