"""Fixes: what a rule suggests and its configuration (no torch), and carrying it out on a model (``apply``).

Each kind of fix has its file in ``stabmon/fixes/kinds`` and, there, its constructor: ``stabmon.fixes.bias_fix`` is that
of the kind ``bias``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from stabmon.fixes import kinds as _kinds  # noqa: F401  (each kind joins the registry)
from stabmon.fixes import registry
from stabmon.fixes.configuration import apply_to_config, config_diff
from stabmon.fixes.suggest import together

if TYPE_CHECKING:
    from torch import nn

    from stabmon.fixes.change import Applied
    from stabmon.fixes.record import Fix

__all__ = ["apply", "apply_to_config", "config_diff", "source_diff", "together"]


def apply(fix: Fix, model: nn.Module) -> Applied:
    """Carry ``fix`` out on ``model``, in place, and return what that changed; see ``Fix.apply``, which needs torch."""
    return fix.apply(model)


def source_diff(fix: Fix, model: nn.Module) -> str:
    """Return ``fix`` as a diff of the user's own file; see ``stabmon.fixes.source.diff_of``, which needs torch."""
    from stabmon.fixes.source import diff_of

    return diff_of(fix.parts, model)


def __getattr__(name: str) -> Any:
    kind = name.removesuffix("_fix")
    if kind == name or not registry.is_registered(kind):
        raise AttributeError(f"module 'stabmon.fixes' has no attribute {name!r}")
    return getattr(sys.modules[type(registry.find(kind)).__module__], name)


def __dir__() -> list[str]:
    return sorted([*__all__, *(f"{name}_fix" for name in registry.names())])
