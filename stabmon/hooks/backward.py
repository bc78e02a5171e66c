"""The beginning of a backward pass where FSDP sets gradients itself, past the hooks of its parameters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from stabmon.hooks.uncompiled import uncompiled
from stabmon.hooks.uncopied import Uncopied


class BackwardHook(Uncopied):
    """The forward hook of a module that FSDP shards: ``began`` is called when a gradient comes to its output."""

    def __init__(self, began: Callable[[], None]) -> None:
        self._began = began

    @uncompiled
    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Put a hook on each output of a pass with gradients."""
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.requires_grad:
                tensor.register_hook(self._note)  # type: ignore[no-untyped-call]

    def _note(self, gradient: Tensor) -> None:
        """Leave the gradient as it is."""
        self._began()
