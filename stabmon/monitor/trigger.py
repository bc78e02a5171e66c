"""The first training pass of a watched model, seen before it runs."""

import gc
import sys
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.parallel import DataParallel, DistributedDataParallel

from stabmon.hooks.recording import is_transformed
from stabmon.hooks.uncompiled import uncompiled
from stabmon.hooks.uncopied import Uncopied

Fire = Callable[[nn.Module, tuple[Any, ...], Mapping[str, Any]], None]
"""Takes the module that is called, its arguments and its keyword arguments."""


class Trigger:
    """Calls ``fire`` before the first pass through a model, or a part of it, in training mode and with gradients.

    It acts in plain Python, and torch.compile takes hooks into its graph: so the call of what ``torch.compile`` returns
    is acted on where the model is in it. A model that is compiled in place (``model.compile()``) is not seen. Its hooks
    are gone before the pass runs, so that no graph depends on them; parts that the pass does not reach keep theirs.

    fired: whether a training pass was seen.
    graphed: whether a pass ran within a graph.
    """

    def __init__(self, model: nn.Module, fire: Fire) -> None:
        self.fired = self.graphed = False
        self._others: set[str] = set()
        self._model, self._fire = model, fire
        self._waiting = [*model.modules(), *_compiled_around(model)]
        self._handles: list[Any] = []

    @property
    def others(self) -> frozenset[str]:
        """Kinds of passes that were seen and not acted on."""
        return frozenset(self._others | ({"torch.compile"} if self.graphed else set()))

    def arm(self) -> None:
        """Put hooks on all parts that wait for their first pass, and see what is compiled from now on."""
        self.disarm()
        hook = _PreHook(self)
        self._handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module in self._waiting]
        if self._waiting:
            self._handles.append(register_module_module_registration_hook(_OnCompile(self)))

    def disarm(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def called(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Fire if this is a training pass."""
        reason = _not_yet(module)
        if reason is not None:
            self._others.add(reason)
            return
        self.fired = True
        self.disarm()
        reached = set(module.modules())
        self._waiting = [] if self._model in reached else [part for part in self._waiting if part not in reached]
        before = dict(module._forward_pre_hooks)
        self._fire(_unwrapped(module, self._model), args, kwargs)
        _run_new_hooks(module, before, args, kwargs)
        self.arm()

    def compiled(self, wrapper: nn.Module, inner: nn.Module) -> None:
        """See the calls of ``wrapper``, which torch.compile makes around ``inner``, if the model is in it."""
        if any(module is self._model for module in inner.modules()):
            self._handles.append(wrapper.register_forward_pre_hook(_PreHook(self), with_kwargs=True))


class _PreHook(Uncopied):
    """The forward pre-hook of every part that waits; it does not keep the trigger alive."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = weakref.ref(trigger)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Let the trigger see the call, or only that there is one within a graph."""
        trigger = self.trigger()
        if trigger is None:
            return
        if torch.compiler.is_compiling():
            trigger.graphed = True
        else:
            trigger.called(module, args, kwargs)


class _OnCompile:
    """A global hook, called when a module becomes part of another; it does not keep the trigger alive."""

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = weakref.ref(trigger)

    @uncompiled
    def __call__(self, module: nn.Module, name: str, inner: nn.Module | None) -> None:
        """Note a module that comes out of torch.compile; none is made within a graph."""
        if torch.compiler.is_compiling():
            return
        trigger = self.trigger()
        if trigger is not None and inner is not None and is_compiled(module):
            trigger.compiled(module, inner)


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``module`` came out of ``torch.compile``; loads nothing of the compiler, which takes seconds."""
    compiler = sys.modules.get("torch._dynamo")
    return compiler is not None and isinstance(module, compiler.OptimizedModule)


def _compiled_around(model: nn.Module) -> list[nn.Module]:
    """Return what torch.compile has made around ``model``, or around something that it is in."""
    compiler = sys.modules.get("torch._dynamo")
    if compiler is None:
        return []
    made = [thing for thing in gc.get_objects() if type(thing) is compiler.OptimizedModule]
    return [wrapper for wrapper in made if any(module is model for module in wrapper.modules())]


def _not_yet(module: nn.Module) -> str | None:
    """Return why a pass through ``module`` that begins now is no training pass to act on, or None where it is."""
    if not module.training:
        return "eval mode"
    if not torch.is_grad_enabled():
        return "gradients off"
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return "CUDA graph capture"
    if is_transformed():
        return "torch.func, fake tensors or tracing"
    return None


def _run_new_hooks(
    module: nn.Module, before: Mapping[int, Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Run the pre-hooks that ``module`` got while it is being called: torch has listed those of this call already."""
    for key, hook in tuple(module._forward_pre_hooks.items()):
        if before.get(key) is not hook:
            hook(module, args, kwargs) if key in module._forward_pre_hooks_with_kwargs else hook(module, args)


def _unwrapped(module: nn.Module, model: nn.Module) -> nn.Module:
    """Return what ``module`` runs without torch.compile and data-parallel wrappers around ``model``."""
    while module is not model:
        if is_compiled(module):
            module = module._orig_mod  # type: ignore[assignment]
        elif isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        else:
            break
    return module
