"""A pass that leaves no trace in the model or in the process."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch import nn

from stabmon.generators import same_generators, same_torch_generators

PATIENCE = 10.0
"""Seconds that a thread waits for another one's block, whose model might in turn wait for this thread."""
_one_at_a_time = threading.RLock()


@contextmanager
def undisturbed(model: nn.Module, *, keep_new: bool = False) -> Iterator[None]:
    """Run the block in eval mode without gradients, uncompiled, and put back what a forward pass may change.

    These are training flags, buffers, plain attributes of modules (a counter, a cached mask) and the random state of
    torch, numpy and Python. Fused fast paths are off, since they run past hooks. That and the warning filters belong
    to the process, so blocks of several threads follow each other.

    keep_new: keep attributes that the block sets for the first time, such as an output that a user looks at afterwards.
    """
    flags = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    attributes = [(module, _plain(module)) for module in model.modules()]
    with ExitStack() as stack:
        if _one_at_a_time.acquire(timeout=PATIENCE):
            stack.callback(_one_at_a_time.release)
        fast = torch.backends.mha.get_fastpath_enabled()
        for context in (torch.no_grad(), same_generators(), same_torch_generators(model), _uncompiled()):
            stack.enter_context(context)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # the pass that follows says the same
        try:
            model.eval()
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for module, before in attributes:
                for name in () if keep_new else vars(module).keys() - before.keys() - _OWN:
                    del vars(module)[name]
                vars(module).update(before)
            for module, flag in flags:
                module.training = flag
            for buffer, values in buffers:
                if not torch.equal(buffer, values):
                    buffer.copy_(values)


_OWN = frozenset(vars(nn.Module()))
"""Attributes that every module has: its tables of parameters, buffers, submodules and hooks."""


def _plain(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name not in _OWN}


def _uncompiled() -> AbstractContextManager[None]:
    """Return a block in which compiled parts of a model run as they were written."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance
