"""The models that are watched now, and the refusals that follow from it."""

import weakref

from torch import nn

from stabmon.errors import WatchError
from stabmon.monitor.trigger import is_compiled

_watched: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
"""Models that a monitor watches now."""


def claim(model: nn.Module) -> None:
    """Note that ``model`` is watched.

    Raises:
        WatchError: it, a part of it, or a model that it is a part of is watched already.
    """
    inside = set(model.modules())
    for other in tuple(_watched):
        if other in inside or any(module is model for module in other.modules()):
            within = "" if other is model else f" with {type(other).__name__}"
            raise WatchError(
                f"{type(model).__name__} is watched already{within}: close the first monitor, or leave its with block, "
                "before watching again"
            )
    _watched.add(model)


def release(model: nn.Module) -> None:
    """Note that ``model`` is not watched any more."""
    _watched.discard(model)


def refuse_compiled(model: nn.Module) -> None:
    """Raise if a part of ``model`` was compiled: hooks that are put on later are ignored in silence.

    Raises:
        WatchError: ``torch.compile(model)`` or ``module.compile()`` came first.
    """
    for name, module in model.named_modules():
        if is_compiled(module) or getattr(module, "_compiled_call_impl", None) is not None:
            raise WatchError(
                f"{name or type(model).__name__} was compiled already, so hooks on it would be ignored: "
                "watch before compiling, as in monitor = stabmon.watch(model, ...); model = torch.compile(model)"
            )
