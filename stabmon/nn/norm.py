"""RMS norm that is exact under autocast."""

from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """``torch.nn.RMSNorm`` that computes in its weight's type.

    Under autocast a projection gives bf16 while weights are fp32; PyTorch then leaves its fused kernel and says so in a
    warning. Here the input is cast first and the output has the weight's type.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [..., width] over its root mean square over the last dimension, times the weight."""
        return super().forward(x.to(self.weight.dtype))
