"""The random generators of the process: an import may draw from them, as rich does, and change the training."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def same_generators() -> Iterator[None]:
    """Give Python's and numpy's global generators back as they were; one that was not drawn from is not touched."""
    before, numpy = random.getstate(), _numpy()
    drawn = numpy.get_state(legacy=False) if numpy else None
    try:
        yield
    finally:
        if random.getstate() != before:
            random.setstate(before)
        if numpy and repr(numpy.get_state(legacy=False)) != repr(drawn):
            numpy.set_state(drawn)


@contextmanager
def same_torch_generators(model: "nn.Module") -> Iterator[None]:
    """Give torch's global generators, of the CPU and of the devices of ``model``, back as they were."""
    import torch

    cuda = sorted({tensor.device.index for tensor in model.parameters() if tensor.is_cuda})
    with torch.random.fork_rng(devices=cuda):
        yield


def _numpy() -> Any:
    """Return numpy's module of generators where it is loaded: nobody has drawn from it otherwise."""
    return sys.modules.get("numpy.random")
