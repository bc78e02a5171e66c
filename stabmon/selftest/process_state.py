"""A program that watches a model and prints as JSON what of its own process is not as before: nothing, if all is well.

It imports nothing of stabmon first, for what an import changes counts too.
"""

import json
import logging
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer


def _state() -> dict[str, object]:
    """Return what a training may notice of its process."""
    return {
        "python's random": random.getstate(),
        "numpy's generator": repr(np.random.get_state()),
        "torch's generator": torch.get_rng_state().tolist(),
        "signal handlers": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "warning filters": list(warnings.filters),
        "logging handlers": list(logging.getLogger().handlers),
        "excepthook": sys.excepthook,
        "standard output": sys.stdout,
        "standard error": sys.stderr,
    }


def _step(model: nn.Module, watch: Callable[[Optimizer], AbstractContextManager[object]] | None = None) -> None:
    """Train one step."""
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    with nullcontext() if watch is None else watch(optimizer):
        model(torch.ones(2, 8, 16)).square().mean().backward()
        optimizer.step()


def changed() -> list[str]:
    """Watch one step of a small model, and return what is not as before."""
    _step(torch.nn.Linear(16, 16))  # what torch itself loads late is no change of ours
    before = _state()
    import stabmon
    from stabmon.nn import Block, SigmoidAttention

    torch_state = torch.get_rng_state()
    model = torch.nn.Sequential(Block(16, SigmoidAttention(16, 2, max_length=8, is_causal=True)))
    torch.set_rng_state(torch_state)  # the model's own numbers
    with tempfile.TemporaryDirectory() as folder:
        _step(model, lambda optimizer: stabmon.watch(model, optimizer, dir=Path(folder), name="run"))
    after = _state()
    return [name for name, state in before.items() if after[name] != state]


if __name__ == "__main__":
    print(json.dumps(changed()))
