"""LayerScale: a learnable gain per channel on a residual branch."""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiply each channel of a branch by its own learnable gain.

    Args:
        width: number of channels, the last dimension of the input.
        init: first value of every gain: 0.1 up to depth 18, 1e-5 at 24, 1e-6 deeper (arXiv 2103.17239); 1e-4 in sigmoid
            attention's released vision code.

    References:
        arXiv 2103.17239.
    """

    def __init__(self, width: int, init: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((width,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [..., width] times the gain."""
        return x * self.gain

    def extra_repr(self) -> str:
        """Return the width, for the model's printed form."""
        return f"width={self.gain.numel()}"
