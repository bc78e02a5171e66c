"""One forward pass through a model that is left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stabmon.batch import Batch, arguments
from stabmon.errors import ModelError, StabmonError


def run(model: nn.Module, batch: Batch) -> None:
    """Call ``model`` once with ``batch``.

    Raises:
        ModelError: the model does not take it.
    """
    args, kwargs = arguments(batch)
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


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Run the block in eval mode, and put flags, buffers and torch's random state back; fused fast paths are off."""
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    fast = torch.backends.mha.get_fastpath_enabled()
    cuda = sorted({tensor.device.index for tensor in model.parameters() if tensor.is_cuda})
    with torch.random.fork_rng(devices=cuda):
        try:
            model.eval()
            torch.backends.mha.set_fastpath_enabled(False)  # it runs past the hooks
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, flag in flags:
                module.training = flag
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
