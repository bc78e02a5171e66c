"""The hooks of a watched model: forward hooks on attentions, blocks and branches, and gradient hooks."""

from stabmon.hooks.attach import attach, gradient_norms
from stabmon.hooks.gradients import GradientNorms
from stabmon.hooks.recording import Recording

__all__ = ["GradientNorms", "Recording", "attach", "gradient_norms"]
