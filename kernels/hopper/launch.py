"""Launch parameters that the hopper backend's kernels share: TMA descriptors, grids, padding."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..launching import descriptors
from ..launching.launcher import Describe
from ..problem import Problem
from .requirements import CAPABILITY

OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
"""Compiler options of every launch; the first consumer runs in the kernel's own four warps."""


def padded(head_dim: int) -> int:
    """Return the columns of a tile that hold ``head_dim``."""
    return 64 if head_dim <= 64 else 128


def lead(problem: Problem) -> int:
    """Return by how many keys the first key tile begins before the first key.

    Causal key tiles lie so that a slab of 64 rows meets the diagonal within one of them. Queries cannot be shifted
    instead: a TMA load may begin before its tensor, a TMA store may not.
    """
    return (problem.query.size(2) - problem.key.size(2)) % 64 if problem.is_causal else 0


def programs(work_items: int, processors: int) -> int:
    """Return the grid: no more programs than multiprocessors, each with at least one work item."""
    return min(work_items, processors)


def readable(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy of it where TMA cannot read it: unaligned or broadcast."""
    return tensor if fit((tensor,)) else tensor.clone(memory_format=torch.contiguous_format)


def fit(tensors: Sequence[Tensor]) -> bool:
    """Return whether TMA can read all ``tensors``."""
    return descriptors.fit(CAPABILITY, tuple(tensors))


def tile(rows: int, columns: int) -> Describe:
    """Return how the descriptor of a tensor in tiles [rows, columns] is built."""
    return lambda tensor: descriptor(tensor, rows, columns)


def descriptor(tensor: Tensor, rows: int, columns: int) -> Any:
    """Return the TMA descriptor of a tensor [B, H, N, D] in tiles [rows, columns]."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    block = [1, 1, rows, columns]
    return TensorDescriptor(
        tensor, list(tensor.shape), descriptors.steps(tensor), block, _layout(rows, columns, tensor.dtype)
    )


@cache
def _layout(rows: int, columns: int, dtype: torch.dtype) -> Any:
    from triton.experimental.gluon import language as gl

    kind = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16, torch.float32: gl.float32}[dtype]
    return gl.NVMMASharedLayout.get_default_for([1, 1, rows, columns], kind)
