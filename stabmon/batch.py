"""A batch as a user gives it, and a call of the model with it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from stabmon.errors import ModelError, StabmonError

Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""The only argument of a model, its arguments, or its keyword arguments."""


def arguments(batch: Batch) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the arguments and the keyword arguments that ``batch`` stands for."""
    if isinstance(batch, Mapping):
        return (), batch
    return batch if isinstance(batch, tuple) else (batch,), {}


def run(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Call ``model`` once.

    Raises:
        ModelError: the model does not take the arguments.
    """
    try:
        model(*args, **kwargs)
    except StabmonError:
        raise
    except Exception as error:  # whatever the user's model raises on this batch is reported with what it was given
        given = ", ".join([*map(_shown, args), *(f"{name}={_shown(value)}" for name, value in kwargs.items())])
        raise ModelError(
            f"{type(model).__name__} does not take this batch: it was called with ({given}) and raised "
            f"{type(error).__name__}: {error}; pass a tensor, a tuple of arguments or a mapping of keyword arguments"
        ) from error


def _shown(value: object) -> str:
    if isinstance(value, Tensor) and value.is_nested:  # has no shape
        return f"nested {str(value.dtype).removeprefix('torch.')} on {value.device}"
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)} on {value.device}"
    return type(value).__name__
