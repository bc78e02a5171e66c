"""``nn.MultiheadAttention`` with sigmoid weights."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.conversion import additions
from stabmon.kernels import sigmoid_attention


class SigmoidMultiheadAttention(nn.MultiheadAttention):
    """The class that a converted ``nn.MultiheadAttention`` has; its parameters and their names stay."""

    sigmoid_bias: Tensor | float

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """False, which keeps ``nn.TransformerEncoderLayer`` from its fused softmax attention in evaluation."""
        return False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output and, with ``need_weights``, the weights; the arguments are those of the base class.

        Raises:
            ValueError: the input is nested, or ``is_causal`` comes without the mask that it describes.
        """
        if query.is_nested:
            raise ValueError("a converted nn.MultiheadAttention does not take nested tensors; pass a key_padding_mask")
        if is_causal and attn_mask is None:
            raise ValueError("is_causal describes attn_mask, which must be given beside it")
        if self.training and self.dropout > 0 and not torch.compiler.is_compiling():
            additions.log_ignored_dropout("nn.MultiheadAttention")
        batched = query.dim() == 3
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        output, weights = self._attend(query, key, value, key_padding_mask, attn_mask, is_causal, need_weights)
        weights = weights.mean(1) if weights is not None and average_attn_weights else weights
        if not batched:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding: Tensor | None,
        attn_mask: Tensor | None,
        is_causal: bool,
        need_weights: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return output [B, N_q, E] and weights [B, H, N_q, N_k] for inputs with the batch first."""
        q, k, v = self._project(query, key, value)
        q, k = additions.normed(self, q, k, v.dtype)
        is_causal = is_causal and q.size(2) == k.size(2)
        of_pairs = _as_valid(attn_mask) if not is_causal or need_weights else None
        if of_pairs is not None and of_pairs.dim() == 3:
            of_pairs = of_pairs.view(q.size(0), self.num_heads, *of_pairs.shape[1:])
        mask = _both(of_pairs, _as_valid(None if padding is None else padding[:, None, None]))
        mixed = sigmoid_attention(
            q, k, v, bias=self.sigmoid_bias, is_causal=is_causal and not need_weights, attn_mask=mask
        )
        output: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output, self._weights(q, k, mask) if need_weights else None

    def _project(self, *inputs: Tensor) -> list[Tensor]:
        """Return query, key and value, [B, H, N, D]."""
        if self.in_proj_weight is None:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        projected = [functional.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]
        return [x.view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2) for x in projected]

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weights [B, H, N_q, N_k], which the kernel does not keep."""
        bias = self.sigmoid_bias
        logits = q @ k.transpose(2, 3) / math.sqrt(self.head_dim)
        logits = logits + (bias if isinstance(bias, float) else bias[:, None, None].to(logits.dtype))
        if mask is None:
            return logits.sigmoid()
        hidden = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
        return hidden.sigmoid()


def _as_valid(mask: Tensor | None) -> Tensor | None:
    """Return a mask as the kernels take it: booleans are true for valid pairs, where they are for hidden ones here."""
    return mask if mask is None or mask.dtype != torch.bool else ~mask


def _both(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return one mask for two, added where one of them is."""
    if first is None or second is None:
        return second if first is None else first
    if first.dtype == second.dtype == torch.bool:
        return first & second
    if first.dtype == torch.bool:
        first, second = second, first
    return first.masked_fill(~second, -torch.inf) if second.dtype == torch.bool else first + second
