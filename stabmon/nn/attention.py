"""Self-attention with sigmoid weights: projections, positions, QK norm and a bias per head around the fused kernel."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from stabmon.kernels import Backend, sigmoid_attention
from stabmon.nn.self_attention import Position, SelfAttention

Bias = float | Literal["length", "learnable"]


class SigmoidAttention(SelfAttention):
    """Multi-head self-attention, out = sigmoid(q kᵀ/√D + b) v, with a bias b per head.

    ``bias`` is always a tensor [heads] in fp32: a buffer when it is fixed, a parameter when it learns.

    Args:
        width: channels of input and output; a multiple of ``heads``.
        heads: number of heads.
        bias: a number for every head; "length": -log(max_length), which makes a row sum to about one at the start;
            "learnable": starts there, or at ``bias_start``, and trains.
        bias_start: first value of a learnable bias.
        max_length: longest training sequence in tokens.
        is_causal: whether a query sees only keys up to its own position.
        position: "rope", "alibi", or None where the model adds positions itself.
        qk_norm: whether queries and keys go through an RMS norm over each head's channels.
        backend: passed to ``sigmoid_attention``.

    Raises:
        ValueError: a size is not positive, ``width`` does not divide by ``heads``, RoPE meets an odd head dim, or
            ``bias_start`` is given to a bias that does not learn.

    References:
        arXiv 2409.04431.
    """

    bias: Tensor

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        bias: Bias = "length",
        bias_start: float | None = None,
        max_length: int,
        is_causal: bool = False,
        position: Position | None = None,
        qk_norm: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(width, heads, is_causal=is_causal, position=position, qk_norm=qk_norm)
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        self.max_length, self.backend = max_length, backend
        start = torch.full((heads,), _first_bias(bias, bias_start, max_length), dtype=torch.float32)
        if bias == "learnable":
            self.bias = nn.Parameter(start)
        else:
            self.register_buffer("bias", start)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the sums of ``value`` with sigmoid weights, all [B, H, N, D]."""
        return sigmoid_attention(
            query,
            key,
            value,
            bias=self.bias,
            is_causal=self.is_causal,
            alibi_slopes=self.alibi_slopes,
            key_lengths=lengths,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """Return the options that no submodule shows, for the model's printed form."""
        learns = "learnable" if isinstance(self.bias, nn.Parameter) else "fixed"
        return (
            f"heads={self.heads}, head_dim={self.head_dim}, max_length={self.max_length}, bias={learns}, "
            f"is_causal={self.is_causal}, position={self.position}, backend={self.backend!r}"
        )


def _first_bias(bias: Bias, start: float | None, max_length: int) -> float:
    if start is not None and bias != "learnable":
        raise ValueError(f"bias_start is where bias 'learnable' starts, got bias {bias!r}; leave it out")
    if isinstance(bias, str):
        if bias not in ("length", "learnable"):
            raise ValueError(f"bias must be a number, 'length' or 'learnable', got {bias!r}")
        return -math.log(max_length) if start is None else float(start)
    return float(bias)
