"""A fix as a change to the configuration of a run. No torch."""

import difflib

import yaml

from stabmon.config import RunConfig, override
from stabmon.errors import ConfigError, FixError
from stabmon.fixes import registry
from stabmon.fixes.record import Fix


def apply_to_config(fix: Fix, config: RunConfig) -> RunConfig:
    """Return ``config`` with ``fix`` applied from step 0.

    A configuration has one bias and one LayerScale gain for all layers, so the fix of one layer becomes that of the
    model; a learnable bias goes on learning from the new value. The parts of a fix are applied one after the other.

    Raises:
        FixError: the configuration has already what the fix would add, softmax is given a bias, or the value is not one
            that a configuration takes.
    """
    for part in fix.parts:
        changes = registry.find(part.kind).settings(part, config)
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
