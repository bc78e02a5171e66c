"""A batch, as the arguments of a model."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""The only argument of a model, its arguments, or its keyword arguments."""


def arguments(batch: Batch) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the arguments and the keyword arguments that ``batch`` stands for."""
    if isinstance(batch, Mapping):
        return (), batch
    return batch if isinstance(batch, tuple) else (batch,), {}
