"""Self-attention with sigmoid weights: projections, positions, QK norm and a bias per head around the fused kernel."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from stabmon.kernels import sigmoid_attention
from stabmon.nn.norm import RMSNorm
from stabmon.nn.position import alibi_slopes, rotate

Backend = Literal["auto", "eager", "triton"]
Position = Literal["rope", "alibi"]
Bias = float | Literal["length", "learnable"]


class SigmoidAttention(nn.Module):
    """Multi-head self-attention, out = sigmoid(q kᵀ/√D + b) v, with a bias b per head.

    ``bias`` is always a tensor [heads] in fp32: a buffer when it is fixed, a parameter when it learns.

    Args:
        width: channels of input and output; a multiple of ``heads``.
        heads: number of heads.
        bias: a number for every head; "length": -log(max_length), which makes a row sum to about one at the start;
            "learnable": starts there and trains.
        max_length: longest training sequence in tokens.
        is_causal: whether a query sees only keys up to its own position.
        position: "rope", "alibi", or None where the model adds positions itself.
        qk_norm: whether queries and keys go through an RMS norm over each head's channels.
        backend: passed to ``sigmoid_attention``.

    Raises:
        ValueError: a size is not positive, ``width`` does not divide by ``heads``, or RoPE meets an odd head dim.

    References:
        arXiv 2409.04431.
    """

    bias: Tensor
    alibi_slopes: Tensor | None

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        bias: Bias = "length",
        max_length: int,
        is_causal: bool = False,
        position: Position | None = None,
        qk_norm: bool = False,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        _check_sizes(width, heads, max_length, position)
        self.heads, self.head_dim, self.max_length = heads, width // heads, max_length
        self.is_causal, self.position, self.backend = is_causal, position, backend
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm: nn.Module = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.key_norm: nn.Module = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        start = torch.full((heads,), _first_bias(bias, max_length), dtype=torch.float32)
        if bias == "learnable":
            self.bias = nn.Parameter(start)
        else:
            self.register_buffer("bias", start)
        self.register_buffer("alibi_slopes", alibi_slopes(heads) if position == "alibi" else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each sequence of ``x`` [B, N, width] and return [B, N, width]."""
        query, key, value = self._project(x)
        mixed = sigmoid_attention(
            query,
            key,
            value,
            bias=self.bias,
            is_causal=self.is_causal,
            alibi_slopes=self.alibi_slopes,
            backend=self.backend,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key, value [B, H, N, D], normed and rotated, all of the projection's dtype."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim))  # [B, N, 3, H, D]
        query, key, value = qkv.transpose(1, 3).unbind(2)
        query, key = self.query_norm(query), self.key_norm(key)
        if self.position == "rope":
            query, key = rotate(query, key)
        return query.to(value.dtype), key.to(value.dtype), value  # norms keep their weight's type

    def extra_repr(self) -> str:
        """Return what the submodules do not show, for the model's printed form."""
        learns = "learnable" if isinstance(self.bias, nn.Parameter) else "fixed"
        return (
            f"heads={self.heads}, head_dim={self.head_dim}, max_length={self.max_length}, bias={learns}, "
            f"is_causal={self.is_causal}, position={self.position}, backend={self.backend!r}"
        )


def _first_bias(bias: Bias, max_length: int) -> float:
    if isinstance(bias, str):
        if bias not in ("length", "learnable"):
            raise ValueError(f"bias must be a number, 'length' or 'learnable', got {bias!r}")
        return -math.log(max_length)
    return float(bias)


def _check_sizes(width: int, heads: int, max_length: int, position: Position | None) -> None:
    if min(width, heads, max_length) < 1:
        raise ValueError(f"width, heads and max_length must be at least 1, got {width}, {heads} and {max_length}")
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, got width {width} and {heads} heads")
    if position not in (None, "rope", "alibi"):
        raise ValueError(f"position must be None, 'rope' or 'alibi', got {position!r}")
    if position == "rope" and (width // heads) % 2:
        raise ValueError(
            f"rope turns pairs of channels: head dim must be even, got {width} / {heads} = {width // heads}"
        )
