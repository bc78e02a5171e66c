"""Parts shared by sigmoid and softmax self-attention: projections into heads, QK norm, positions, output."""

from typing import Literal

from torch import Tensor, nn

from stabmon.nn.norm import RMSNorm
from stabmon.nn.position import alibi_slopes, rotate

Position = Literal["rope", "alibi"]


class SelfAttention(nn.Module):
    """Multi-head self-attention without the weights between queries and keys: a subclass's ``mix`` gives them.

    Args:
        width: channels of input and output; a multiple of ``heads``.
        heads: number of heads.
        is_causal: whether a query sees only keys up to its own position.
        position: "rope", "alibi", or None where the model adds positions itself.
        qk_norm: whether queries and keys go through an RMS norm over each head's channels.

    Raises:
        ValueError: a size is not positive, ``width`` does not divide by ``heads``, or RoPE meets an odd head dim.
    """

    alibi_slopes: Tensor | None

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        is_causal: bool = False,
        position: Position | None = None,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        _check_sizes(width, heads, position)
        self.heads, self.head_dim = heads, width // heads
        self.is_causal, self.position = is_causal, position
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_norm: nn.Module = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.key_norm: nn.Module = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.register_buffer("alibi_slopes", alibi_slopes(heads) if position == "alibi" else None, persistent=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Attend within each sequence of ``x`` [B, N, width] and return [B, N, width].

        lengths: [B] whole numbers, or None: of sequence b only the first lengths[b] tokens are keys, the rest is
            padding. Rows of padding are computed like all others; the model must not read them.
        """
        mixed = self.mix(*self.project(x), lengths)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def mix(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the weighted sums of the values, all [B, H, N, D]."""
        raise NotImplementedError

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key, value [B, H, N, D], normed and rotated, all of the projection's dtype."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_dim))  # [B, N, 3, H, D]
        query, key, value = qkv.transpose(1, 3).unbind(2)
        query, key = self.query_norm(query), self.key_norm(key)
        if self.position == "rope":
            query, key = rotate(query, key)
        return query.to(value.dtype), key.to(value.dtype), value  # norms keep their weight's type


def _check_sizes(width: int, heads: int, position: Position | None) -> None:
    if min(width, heads) < 1:
        raise ValueError(f"width and heads must be at least 1, got {width} and {heads}")
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, got width {width} and {heads} heads")
    if position not in (None, "rope", "alibi"):
        raise ValueError(f"position must be None, 'rope' or 'alibi', got {position!r}")
    if position == "rope" and (width // heads) % 2:
        raise ValueError(
            f"rope rotates pairs of channels: head dim must be even, got {width} / {heads} = {width // heads}"
        )
