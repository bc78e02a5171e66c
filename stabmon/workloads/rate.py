"""The learning rate over a training."""

import math

from stabmon.config import TrainingConfig


def rate(step: int, training: TrainingConfig) -> float:
    """Return the learning rate at ``step`` (from 0) over its peak: linear warm-up, then a cosine down to 0.1."""
    if step < training.warmup:
        return (step + 1) / training.warmup
    done = (step - training.warmup) / max(1, training.steps - 1 - training.warmup)
    return 0.55 + 0.45 * math.cos(math.pi * min(1.0, done))
