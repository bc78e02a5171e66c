"""Fixes: what a rule suggests and its configuration (no torch), and how it is carried out on a model (``apply``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stabmon.fixes.code import code_for
from stabmon.fixes.configuration import apply_to_config, config_diff
from stabmon.fixes.suggest import (
    bias_fix,
    clip_fix,
    hybrid_norm_fix,
    layer_scale_fix,
    layer_scale_gain,
    learnable_bias_fix,
    learning_rate_fix,
    length_fix,
    position_fix,
    pre_norm_fix,
    precision_fix,
    qk_norm_fix,
    together,
    warmup_fix,
)

if TYPE_CHECKING:
    from torch import nn

    from stabmon.fixes.record import Applied, Fix

__all__ = [
    "apply",
    "apply_to_config",
    "bias_fix",
    "clip_fix",
    "code_for",
    "config_diff",
    "hybrid_norm_fix",
    "layer_scale_fix",
    "layer_scale_gain",
    "learnable_bias_fix",
    "learning_rate_fix",
    "length_fix",
    "position_fix",
    "pre_norm_fix",
    "precision_fix",
    "qk_norm_fix",
    "source_diff",
    "together",
    "warmup_fix",
]


def apply(fix: Fix, model: nn.Module) -> Applied:
    """Carry ``fix`` out on ``model``, in place; see ``stabmon.fixes.application.apply``, which needs torch."""
    from stabmon.fixes.application import apply as carry_out

    return carry_out(fix, model)


def source_diff(fix: Fix, model: nn.Module) -> str:
    """Return ``fix`` as a diff of the user's own file; see ``stabmon.fixes.source.source_diff``, which needs torch."""
    from stabmon.fixes.source import source_diff as read

    return read(fix, model)
