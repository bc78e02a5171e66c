"""Softmax attention with the projections, positions and norms of sigmoid attention, for comparison."""

import torch
from torch import Tensor
from torch.nn import functional

from stabmon.nn.self_attention import SelfAttention


class SoftmaxAttention(SelfAttention):
    """Multi-head self-attention, out = softmax(q kᵀ/√D) v, by torch's ``scaled_dot_product_attention``.

    Takes the arguments of ``SelfAttention`` and draws the weights that a ``SigmoidAttention`` with the same arguments
    and random state does.
    """

    def mix(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the means of ``value`` with softmax weights, all [B, H, N, D]."""
        mask = self._mask(query, lengths)
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=self.is_causal and mask is None
        )

    def _mask(self, query: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return the terms added to the logits, broadcastable to [B, H, N, N], or None where none is needed."""
        if lengths is None and self.alibi_slopes is None:
            return None
        positions = torch.arange(query.shape[-2], device=query.device)
        distance = positions[:, None] - positions
        mask = query.new_zeros(distance.shape)
        if self.alibi_slopes is not None:
            mask = mask - (self.alibi_slopes[:, None, None] * distance.abs()).to(query.dtype)
        if self.is_causal:
            mask = mask.masked_fill(distance < 0, -torch.inf)
        if lengths is not None:
            mask = mask.masked_fill((positions >= lengths[:, None])[:, None, None], -torch.inf)
        return mask

    def extra_repr(self) -> str:
        """Return the options that no submodule shows, for the model's printed form."""
        return f"heads={self.heads}, head_dim={self.head_dim}, is_causal={self.is_causal}, position={self.position}"
