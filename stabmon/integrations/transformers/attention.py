"""Sigmoid attention as an attention function of Transformers: ``attn_implementation="sigmoid"``.

``import stabmon.integrations.transformers`` registers it, for every model whose attention goes through Transformers'
``AttentionInterface``.
"""

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from stabmon.conversion.additions import log_ignored_dropout, normed
from stabmon.integrations.transformers.key_value_cache import room_of
from stabmon.integrations.transformers.masks import sigmoid_mask
from stabmon.integrations.transformers.options import NAME, bias_of
from stabmon.kernels import sigmoid_attention

log = logging.getLogger(__name__)

_REFUSED = {
    "softcap": "a cap of the logits (softcap)",
    "s_aux": "attention sinks (s_aux)",
    "sinks": "attention sinks",
    "indices": "sparse attention by indices",
    "block_indices": "sparse attention by block_indices",
}


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return sigmoid attention of ``query`` [B, H, N_q, D] on ``key``, ``value`` [B, H_k, N_k, D], as [B, N_q, H, D].

    Args:
        module: the attention module that calls; its configuration holds the bias (``options.bias_of``).
        query: rotated, as the kernel takes it.
        key: all keys so far, with those of a cache.
        value: like ``key``.
        attention_mask: from ``sigmoid_mask``, or made by the user: [B, 1 or H, N_q, N_k], boolean with True for valid,
            or added to the logits. [B, N_k] marks the valid keys of causal attention, [B, window, N_k] those within it.
        dropout: dropout of weights, which sigmoid attention does not have; ignored, and logged once.
        scaling: factor of q·k; 1/√D by default.
        is_causal: whether attention without a mask, or with one of keys alone, is causal; the module's by default.
        position_bias: added to the logits, broadcastable to [B, H, N_q, N_k]; receives its gradient (T5).
        kwargs: others that a model passes; those that would change the result are refused.

    Raises:
        ValueError: the model wants what sigmoid attention does not have, or no bias can be derived.
    """
    _check(module, dropout, kwargs)
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    window = None
    if attention_mask is not None and attention_mask.dim() == 4:
        is_causal = False  # the mask says it all
    elif attention_mask is not None:
        attention_mask, window = _keys_and_window(attention_mask)
    query, key = normed(module, query, key, value.dtype)
    mask, lengths = _added(attention_mask, position_bias), None
    room = room_of(key, query.size(2)) if mask is None else None
    if room is not None:
        key, value, lengths = room
    out = sigmoid_attention(
        query,
        key,
        value,
        bias=bias_of(module),
        scale=scaling,
        is_causal=is_causal,
        window=window,
        attn_mask=mask,
        key_lengths=lengths,
        cached=lengths is not None,
        enable_gqa=query.size(1) != key.size(1),
    )
    return out.transpose(1, 2).contiguous(), None


def _keys_and_window(mask: Tensor) -> tuple[Tensor | None, int | None]:
    """Return the mask of valid keys, [B, 1, 1, N_k] or None for all, and the window."""
    if mask.dim() == 2:
        return mask[:, None, None], None
    return None if mask.stride(2) == 0 else mask[:, :1, None], mask.size(1)


def _added(mask: Tensor | None, position_bias: Tensor | None) -> Tensor | None:
    """Return the mask with the position bias in one tensor."""
    if mask is None or position_bias is None:
        return position_bias if mask is None else mask
    if mask.dtype == torch.bool:
        return position_bias.masked_fill(~mask, -torch.inf)
    return position_bias + mask


def _check(module: nn.Module, dropout: float, kwargs: dict[str, Any]) -> None:
    for name, what in _REFUSED.items():
        if kwargs.get(name) is not None:
            raise ValueError(f"{type(module).__name__} wants {what}, which sigmoid attention does not have")
    if not torch.compiler.is_compiling():
        if dropout > 0:
            log_ignored_dropout(type(module).__name__)
        if kwargs.get("output_attentions"):
            _log_missing_weights()


@cache
def _log_missing_weights() -> None:
    log.warning("sigmoid attention returns no weights: output_attentions gives None")


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sigmoid_mask)
