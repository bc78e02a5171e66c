"""Tensors as kernels take them: TMA descriptors where hardware and strides allow it, else pointers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..problem import Problem
from .launcher import Describe

TMA_CAPABILITY = (9, 0)
ALIGNMENT = 16
"""Bytes to which TMA wants addresses and strides aligned."""


def fit(capability: tuple[int, int], tensors: tuple[Tensor, ...]) -> bool:
    """Return whether TMA can carry all ``tensors``: 16-bit types, aligned to 16 bytes, no broadcast dimension."""
    return capability >= TMA_CAPABILITY and all(
        tensor.dtype != torch.float32 and is_aligned(tensor) and min(steps(tensor)) > 0 for tensor in tensors
    )


def aligned(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy of it where its rows do not all start at a multiple of 16 bytes.

    A copy is O(N·D); rows that cannot be read 16 bytes at a time would slow, and spill, the O(N²·D) kernels.
    """
    return tensor if is_aligned(tensor) else tensor.clone(memory_format=torch.contiguous_format)


def is_aligned(tensor: Tensor) -> bool:
    """Return whether all rows start at multiples of 16 bytes."""
    size = tensor.element_size()
    return tensor.data_ptr() % ALIGNMENT == 0 and all(step * size % ALIGNMENT == 0 for step in steps(tensor)[:3])


def readable(problem: Problem, copied: Callable[[Tensor], Tensor]) -> Problem:
    """Return ``problem`` with query, key and value as ``copied`` returns them: themselves, or what can be read."""
    query, key, value = (copied(tensor) for tensor in problem[:3])
    return problem._replace(query=query, key=key, value=value)


def steps(tensor: Tensor) -> list[int]:
    """Return the strides, with those of dimensions of size 1, which may be anything, set to a harmless number."""
    safe = tensor.size(3)
    outer = zip(tensor.shape[:3], tensor.stride()[:3], strict=True)
    return [*(safe if size == 1 else step for size, step in outer), 1]


def operands(tma: bool, d_pad: int, rows: tuple[int, ...], pointers: int) -> list[Describe | None]:
    """Return how a kernel takes tensors in tiles of ``rows`` rows, by descriptor or by pointer, and more pointers."""
    return [*(_tile(block, d_pad) if tma else None for block in rows), *[None] * pointers]


def _tile(rows: int, columns: int) -> Describe:
    from triton.tools.tensor_descriptor import TensorDescriptor

    return lambda x: TensorDescriptor(x, list(x.shape), steps(x), [1, 1, rows, columns])


def strides(tma: bool, tensors: tuple[Tensor, ...]) -> list[int]:
    """Return the strides of B, H and N of each tensor; zeros beside descriptors, which hold their own."""
    return [0 if tma else step for tensor in tensors for step in tensor.stride()[:3]]


def per_sequence(problem: Problem) -> tuple[Tensor | None, ...]:
    """Return the tensors besides query, key and value: bias, slopes, mask (boolean as bytes), lengths, starts."""
    mask = problem.attn_mask
    mask = mask.view(torch.uint8) if mask is not None and mask.dtype == torch.bool else mask
    return problem.bias, problem.alibi_slopes, mask, problem.key_lengths, problem.query_starts, problem.key_starts


def bias_strides(problem: Problem) -> tuple[int, int]:
    """Return the strides of sequence and head of the bias, [H] or [B, 1]."""
    return (0, 1) if problem.bias is None or problem.bias.dim() == 1 else (1, 0)


def mask_strides(problem: Problem) -> Sequence[int]:
    """Return the strides of sequence, head, query and key of the mask, 0 where it is the same for all."""
    mask = problem.attn_mask
    if mask is None:
        return 0, 0, 0, 0
    return [0 if size == 1 else step for size, step in zip(mask.shape, mask.stride(), strict=True)]
