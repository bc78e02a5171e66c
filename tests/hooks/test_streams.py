"""Hooks on the residual stream."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from stabmon import Schedule, watch
from stabmon.nn import Block, SigmoidAttention


class _Norms(TorchDispatchMode):
    """Counts norms of whole tensors [2, 8, 16]."""

    number = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if "vector_norm" in str(function) and args[0].shape == (2, 8, 16):
            self.number += 1
        return function(*args, **(kwargs or {}))


def test_a_stream_between_two_blocks_is_measured_once():
    model = nn.Sequential(*(Block(16, SigmoidAttention(16, 2, max_length=8)) for _ in range(3)))
    with watch(model, dir=None, console=False, schedule=Schedule(every=1)) as monitor:
        for _ in range(2):
            with _Norms() as norms:
                model(torch.randn(2, 8, 16)).sum().backward()
            monitor.step()
        assert not monitor.failures
    assert norms.number == 4 + 3  # before and after each block, and each branch
