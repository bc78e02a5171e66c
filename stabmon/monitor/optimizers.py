"""The optimizers of a training: where their steps are counted, and their learning rate."""

from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def with_hooks(given: object) -> tuple[Optimizer, ...]:
    """Return the optimizers in ``given``, one or a sequence, whose steps run torch's hooks; none where there are none.

    One that wraps another and has no hooks of its own, as Accelerate's, is looked into.
    """
    found = [each for one in (given if isinstance(given, list | tuple) else (given,)) for each in _hooked(one, [])]
    return tuple({id(optimizer): optimizer for optimizer in found}.values())


def _hooked(optimizer: object, around: list[object]) -> Iterator[Optimizer]:
    if any(optimizer is outer for outer in around):
        return
    if isinstance(optimizer, Optimizer) and _runs_hooks(optimizer):
        yield optimizer
        return
    for value in vars(optimizer).values() if hasattr(optimizer, "__dict__") else ():
        for inner in value if isinstance(value, list | tuple) else (value,):
            if isinstance(inner, Optimizer):
                yield from _hooked(inner, [*around, optimizer])


def _runs_hooks(optimizer: Optimizer) -> bool:
    """Return whether ``Optimizer.__init__`` ran: it makes the table of hooks and the ``step`` that runs them."""
    has_table = isinstance(getattr(optimizer, "_optimizer_step_post_hooks", None), Mapping)
    return has_table and bool(getattr(type(optimizer).step, "hooked", False))


def learning_rate(optimizer: Optimizer) -> float | Tensor | None:
    """Return the learning rate of the first parameter group, or None where it is no single number."""
    group: Mapping[str, Any] = optimizer.param_groups[0]
    rate = group.get("lr")
    if isinstance(rate, Tensor):
        return rate if rate.numel() == 1 and not rate.is_complex() else None
    return float(rate) if isinstance(rate, Real) and not isinstance(rate, bool) else None
