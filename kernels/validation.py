"""Checks of the arguments of a call; the message of an error says what was expected and what was given."""

from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

import torch
from torch import Tensor

from .auxiliary import AuxRequest

Check = Callable[[str, Any, Tensor, Tensor], None]
"""The check of an option: its name, its value, query and key; raises TypeError or ValueError."""


def check_inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Refuse tensors [B, H, N, D] of types or strides that do not fit together.

    Raises:
        TypeError: dtypes that differ, or of eight bits.
        ValueError: strides that no backend reads.
    """
    for name, tensor in (("key", key), ("value", value)):
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name} must have dtype {query.dtype} to match query, got {tensor.dtype}")
    if query.dtype.itemsize == 1:
        raise TypeError(f"query must be of float16, bfloat16, float32 or float64, got {query.dtype}; convert it first")
    _check_strides(query, key, value)


def one_of(known: tuple[str, ...]) -> Check:
    """Return the check of an option that is one of the ``known`` names."""

    def check(name: str, given: str, query: Tensor, key: Tensor) -> None:
        if given not in known:
            raise ValueError(f"unknown {name} {given!r}; expected one of {', '.join(map(repr, known))}")

    return check


def check_window(name: str, given: int | tuple[int, int] | None, query: Tensor, key: Tensor) -> None:
    """Refuse a window that is no whole number of at least 1, nor a pair of whole numbers of at least -1."""
    if isinstance(given, (tuple, list)):
        if len(given) != 2:
            raise ValueError(f"{name} must be a number or a pair (left, right), got {given!r}")
        for side, number in zip(("left", "right"), given, strict=True):
            _check_count(f"{name}'s {side}", number, least=-1)
    elif given is not None:
        _check_count(name, given)


def check_scale(name: str, given: float | None, query: Tensor, key: Tensor) -> None:
    """Refuse a scale that is a tensor."""
    if isinstance(given, Tensor):
        raise TypeError(
            f"{name} must be None or a number, got a Tensor: no gradient flows to it; multiply query with it"
        )


def check_switch(name: str, given: bool, query: Tensor, key: Tensor) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(given, bool):
        raise TypeError(f"{name} must be True or False, got {given!r}")


def check_switch_or_none(name: str, given: bool | None, query: Tensor, key: Tensor) -> None:
    """Refuse what is not True, False or None."""
    if not isinstance(given, (bool, NoneType)):
        raise TypeError(f"{name} must be True, False or None, got {given!r}")


def check_bias(name: str, given: Tensor | float | None, query: Tensor, key: Tensor) -> None:
    """Refuse a bias that is not None, a number or a floating tensor [H]."""
    if given is None or (isinstance(given, (int, float)) and not isinstance(given, bool)):
        return
    _check_per_head(name, given, query, "None, a number or a Tensor [H]")


def check_slopes(name: str, given: Tensor | None, query: Tensor, key: Tensor) -> None:
    """Refuse slopes that are not None or a floating tensor [H] or, for padded sequences, [B, H]."""
    if isinstance(given, Tensor) and given.dim() == 2 and given.shape == query.shape[:2]:
        _check_per_head(name, given[0], query, "None or a Tensor [H] or [B, H]")
    elif given is not None:
        _check_per_head(name, given, query, "None or a Tensor [H]")


def check_mask(name: str, given: Tensor | None, query: Tensor, key: Tensor) -> None:
    """Refuse a mask that is not boolean or floating, or does not broadcast to [B, H, N_q, N_k]."""
    if given is None:
        return
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be None or a Tensor, got {type(given).__name__}")
    if given.dtype != torch.bool and not given.is_floating_point():
        raise TypeError(f"{name} must be of bool or a floating type, got {given.dtype}")
    _check_device(name, given, query)
    shape = [*query.shape[:3], key.size(2)]
    fits = given.dim() <= 4 and all(
        size in (1, wanted) for size, wanted in zip(reversed(given.shape), reversed(shape), strict=False)
    )
    if not fits:
        raise ValueError(f"{name} must broadcast to [B, H, N_q, N_k] = {shape}, got shape {list(given.shape)}")


def _check_count(name: str, given: int, least: int = 1) -> None:
    if isinstance(given, bool) or not isinstance(given, (int, torch.SymInt)):
        raise TypeError(f"{name} must be a whole number, got {type(given).__name__}")
    if given < least:
        raise ValueError(f"{name} must be at least {least}, got {given}")


def check_key_lengths(name: str, given: Tensor | None, query: Tensor, key: Tensor) -> None:
    """Refuse lengths that are no integers [B]; their values are not read, since that would wait for the device."""
    if given is None:
        return
    _check_integers(name, given, query)
    if given.shape != query.shape[:1]:
        raise ValueError(f"{name} must have shape [{query.size(0)}], one a sequence, got {list(given.shape)}")


def check_packed(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Refuse tensors that are not [T, H, D]."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dim() != 3:
            raise ValueError(f"{name} must have 3 dimensions [T, H, D], got shape {list(tensor.shape)}")


def check_starts(query: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_q: int, max_k: int) -> None:
    """Refuse starts that are no integers [B + 1], and longest lengths below 1; the tensors' values are not read."""
    for name, starts in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        _check_integers(name, starts, query)
        if starts.dim() != 1 or starts.size(0) < 2:
            raise ValueError(f"{name} must have shape [B + 1], one more than sequences, got {list(starts.shape)}")
    if cu_seqlens_k.shape != cu_seqlens_q.shape:
        raise ValueError(
            f"cu_seqlens_k must have shape {list(cu_seqlens_q.shape)} to match cu_seqlens_q, "
            f"got {list(cu_seqlens_k.shape)}"
        )
    for name, longest in (("max_seqlen_q", max_q), ("max_seqlen_k", max_k)):
        _check_count(name, longest)


def _check_integers(name: str, given: Tensor, query: Tensor) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be a Tensor of int32 or int64, got {type(given).__name__}")
    if given.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"{name} must be of int32 or int64, got {given.dtype}")
    _check_device(name, given, query)


def check_request(request: AuxRequest | None) -> None:
    """Refuse a request for statistics that cannot be sampled; checked in every call, since its offset may differ.

    Raises:
        TypeError, ValueError: it is no request, or one of its numbers is out of range.
    """
    if request is None:
        return
    if not isinstance(request, AuxRequest):
        raise TypeError(f"return_aux must be an AuxRequest or None, got {type(request).__name__}")
    if request.rows < 0:
        raise ValueError(f"AuxRequest.rows must be 0 or more, got {request.rows}")
    if not 0.0 <= request.offset < 1.0:
        raise ValueError(f"AuxRequest.offset must lie in [0, 1), got {request.offset}")
    if request.sequences is not None and request.sequences < 1:
        raise ValueError(f"AuxRequest.sequences must be None or at least 1, got {request.sequences}")


def check_tensors(query: Tensor, key: Tensor, value: Tensor, shape: str = "[B, H, N, D]") -> None:
    """Refuse what is no floating tensor, or tensors on several devices; runs before autocast looks at them."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a Tensor {shape}, got {type(tensor).__name__}")
        if type(tensor).__name__ == "DTensor":
            raise TypeError(
                f"{name} must be a local tensor, got a DTensor; shard by sequences or heads and pass {name}.to_local()"
            )
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be of a floating type, got {tensor.dtype}")
        if tensor.device != query.device:
            raise ValueError(f"{name} must be on {query.device} to match query, got {tensor.device}")


def check_layouts(given: Mapping[str, object]) -> None:
    """Refuse tensors, by name, that are no dense array: nested, sparse.

    Raises:
        TypeError: one of them is.
    """
    for name, tensor in given.items():
        if not isinstance(tensor, Tensor):
            continue
        if tensor.is_nested:
            raise TypeError(
                f"{name} must be a dense tensor, got a nested one; pass padded sequences with key_lengths, or packed "
                "ones to sigmoid_attention_varlen"
            )
        if tensor.layout != torch.strided:
            raise TypeError(f"{name} must be a dense tensor, got one of {tensor.layout}; call {name}.to_dense()")


def check_page_table(name: str, given: Tensor | None, query: Tensor, key: Tensor) -> None:
    """Refuse a table that is no integers [B, P]; its values are not read, since that would wait for the device."""
    if given is None:
        return
    _check_integers(name, given, query)
    if given.dim() != 2 or given.size(0) != query.size(0) or given.size(1) == 0:
        raise ValueError(f"{name} must have shape [{query.size(0)}, P], a row a sequence, got {list(given.shape)}")


def check_cache(cached: bool, page_table: object, key_lengths: object, attn_mask: object) -> None:
    """Refuse a cache whose lengths are unknown, or that a mask is given for."""
    if cached and key_lengths is None:
        raise ValueError("cached=True needs key_lengths [B], how many keys of each sequence are written")
    if (cached or page_table is not None) and attn_mask is not None:
        name = "cached" if cached else "page_table"
        raise ValueError(f"{name} does not go with attn_mask; say which keys are valid by key_lengths")


def check_shapes(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool, paged: bool = False) -> None:
    """Refuse tensors that are not [B, H, N_q, D] and twice [B, H_k, N_k, D], or [pages, H_k, page size, D] if paged."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dim() != 4:
            raise ValueError(f"{name} must have 4 dimensions [B, H, N, D], got shape {list(tensor.shape)}")
        if tensor.numel() == 0:
            raise ValueError(f"{name} must not be empty, got shape {list(tensor.shape)}")
    batch, heads, _, dim = query.shape
    if (key.size(0) != batch and not paged) or key.size(3) != dim or (not enable_gqa and key.size(1) != heads):
        expected = ["pages" if paged else batch, "H_k" if enable_gqa else heads, "page size" if paged else "N_k", dim]
        hint = "; pass enable_gqa=True for fewer key heads" if not enable_gqa and key.size(1) != heads else ""
        raise ValueError(f"key must have shape {_shown(expected)} to match query, got {list(key.shape)}{hint}")
    if heads % key.size(1):
        raise ValueError(f"query heads must be a multiple of key heads, got {heads} and {key.size(1)}")
    if value.shape != key.shape:
        raise ValueError(f"value must have shape {list(key.shape)} to match key, got {list(value.shape)}")


def _shown(shape: Sequence[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _check_strides(query: Tensor, key: Tensor, value: Tensor) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.size(-1) > 1 and tensor.stride(-1) != 1:
            raise ValueError(
                f"{name} must be contiguous in its last dimension, got strides {list(tensor.stride())}; "
                f"call {name}.contiguous()"
            )


def _check_per_head(name: str, given: object, query: Tensor, wanted: str) -> None:
    if not isinstance(given, Tensor):
        raise TypeError(f"{name} must be {wanted}, got {type(given).__name__}")
    if given.shape != query.shape[1:2]:
        raise ValueError(f"{name} must have shape [{query.size(1)}], one a query head, got {list(given.shape)}")
    if not given.is_floating_point():
        raise TypeError(f"{name} must be of a floating type, got {given.dtype}")
    _check_device(name, given, query)


def _check_device(name: str, given: Tensor, query: Tensor) -> None:
    if given.device != query.device:
        raise ValueError(f"{name} must be on {query.device} to match query, got {given.device}")
