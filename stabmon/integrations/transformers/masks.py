"""Masks of Transformers' models in the forms that the kernels compute fast."""

from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    prepare_padding_mask,
    sdpa_mask,
)


def sigmoid_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    **kwargs: Any,
) -> Tensor | None:
    """Return the mask of one kind of layer; ``transformers.masking_utils.sdpa_mask`` describes the arguments.

    Returns:
        None where nothing is masked but by ``is_causal``; [B, N_k], True for valid keys, where besides that only
        keys are (padding on either side); [B, window, N_k], of which all rows are the same, where causal attention
        also has a window; else the whole [B, 1, N_q, N_k], with True for valid. A mask of keys alone for attention
        that is not causal has that shape too, by a stride of 0.
    """
    ends_together = isinstance(q_offset, int) and kv_offset + kv_length == q_offset + q_length
    valid = _valid_keys(attention_mask, kv_length, kv_offset)
    if mask_function is causal_mask_function and allow_is_causal_skip and ends_together:
        return valid
    if local_size is not None and not _in_chunks(kwargs.get("config")) and allow_is_causal_skip and ends_together:
        # the skip is allowed for the plain pattern alone, not with packed sequences or masks of the model's own
        return (
            valid if local_size >= kv_length else _windowed(valid, batch_size, local_size, kv_length, kwargs["device"])
        )
    if mask_function is bidirectional_mask_function and allow_is_bidirectional_skip:
        return None if valid is None else valid[:, None, None].expand(batch_size, 1, q_length, kv_length)
    mask: Tensor | None = sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        q_offset,
        kv_offset,
        mask_function,
        attention_mask,
        local_size,
        allow_is_causal_skip=allow_is_causal_skip and ends_together,
        allow_is_bidirectional_skip=allow_is_bidirectional_skip,
        **kwargs,
    )
    return mask


def _in_chunks(config: Any) -> bool:
    """Return whether local attention is that within chunks, whose size Transformers passes as it does a window's."""
    return getattr(config, "attention_chunk_size", None) is not None


def _windowed(valid: Tensor | None, batch: int, window: int, length: int, device: Any) -> Tensor:
    """Return the valid keys with a dimension of the window's size; where all are valid, their stride is 0 too."""
    if valid is None:
        return torch.ones((), dtype=torch.bool, device=device).expand(batch, window, length)
    return valid[:, None].expand(batch, window, length)


def _valid_keys(mask: Tensor | None, length: int, offset: int) -> Tensor | None:
    """Return the valid keys [B, length] from position ``offset`` on, or None where all are known to be valid."""
    padded = prepare_padding_mask(mask, length, offset)
    if padded is None:
        return None
    valid: Tensor = padded[:, offset : offset + length]
    if not torch.compiler.is_compiling() and valid.all():
        return None
    return valid
