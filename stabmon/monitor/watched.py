"""The attentions that are watched now, and the refusals that follow from it."""

import sys
import weakref

from torch import nn

from stabmon.discover import Site
from stabmon.errors import WatchError

_watched: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


def claim(model: nn.Module, found: list[Site]) -> None:
    """Note that the attentions ``found`` in ``model`` are watched.

    Raises:
        WatchError: one of them is watched already.
    """
    taken = [site.attention.module for site in found if site.module in _watched]
    if taken:
        raise WatchError(
            f"{type(model).__name__} is watched already ({', '.join(taken)}): close the first monitor, or leave "
            "its with block, before watching again"
        )
    _watched.update(site.module for site in found)


def release(found: list[Site]) -> None:
    """Note that the attentions ``found`` are not watched any more."""
    for site in found:
        _watched.discard(site.module)


def refuse_compiled(model: nn.Module) -> None:
    """Raise if a part of ``model`` was compiled: hooks that are put on later are ignored in silence.

    Raises:
        WatchError: ``torch.compile(model)`` or ``module.compile()`` came first.
    """
    for name, module in model.named_modules():
        if _is_optimized(module) or getattr(module, "_compiled_call_impl", None) is not None:
            raise WatchError(
                f"{name or type(model).__name__} was compiled already, so hooks on it would be ignored: "
                "watch before compiling, as in monitor = stabmon.watch(model, ...); model = torch.compile(model)"
            )


def _is_optimized(module: nn.Module) -> bool:
    """Return whether ``module`` came out of ``torch.compile``; loads nothing of the compiler, which takes seconds."""
    compiler = sys.modules.get("torch._dynamo")
    return compiler is not None and isinstance(module, compiler.OptimizedModule)
