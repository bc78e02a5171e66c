"""The settings of a plain training loop that a fix of the training can change. No torch."""

from typing import NamedTuple


class Loop(NamedTuple):
    """Factors and limits of a training loop, relative to the optimizer's own learning rate."""

    rate: float = 1.0
    """Factor on the learning rate."""
    warmup: float = 0.0
    """Steps over which the rate grows linearly; 0 for none."""
    clip: float | None = None
    """Largest L2 norm of all gradients together, or None for no clipping."""

    def factor(self, step: int) -> float:
        """Return the learning rate at ``step`` over the optimizer's own."""
        return self.rate * (min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0)
