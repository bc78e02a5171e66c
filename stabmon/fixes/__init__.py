"""Fixes: what a rule suggests (``suggest``, no torch) and how it is carried out on a model (``apply``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stabmon.fixes.suggest import (
    bias_fix,
    code_for,
    hybrid_norm_fix,
    layer_scale_fix,
    learning_rate_fix,
    qk_norm_fix,
)

if TYPE_CHECKING:
    from torch import nn

    from stabmon.records import Fix

__all__ = [
    "apply",
    "bias_fix",
    "code_for",
    "hybrid_norm_fix",
    "layer_scale_fix",
    "learning_rate_fix",
    "qk_norm_fix",
]


def apply(fix: Fix, model: nn.Module) -> None:
    """Carry ``fix`` out on ``model``, in place; see ``stabmon.fixes.application.apply``, which needs torch."""
    from stabmon.fixes.application import apply as carry_out

    carry_out(fix, model)
