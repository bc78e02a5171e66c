"""The numbers that a training logs itself, such as its loss."""

from collections.abc import Collection, Mapping
from numbers import Real

from torch import Tensor

from stabmon.errors import WatchError
from stabmon.monitor.between import narrow


def check_logged(values: Mapping[str, object], announced: Collection[str]) -> None:
    """Raise unless each name of ``values`` was announced and each value is a single number.

    Raises:
        WatchError: says which is not, and what to do.
    """
    if unknown := sorted(values.keys() - set(announced)):
        known = ", ".join(announced) or "none"
        raise WatchError(
            f"cannot log {', '.join(unknown)}: announced were {known}; pass watch(..., log=(...)) with every name"
        )
    for name, value in values.items():
        _check_number(name, value)


def write(buffer: Tensor, at: slice, value: float | Tensor) -> None:
    """Write a number into the slice ``at`` [1] of ``buffer``, without waiting for a tensor's device."""
    if isinstance(value, Tensor):
        buffer[at].copy_(value.detach().reshape(1), non_blocking=True)
    else:
        buffer[at].fill_(narrow(value))


def _check_number(name: str, value: object) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex():
            kind = "a complex tensor" if value.is_complex() else f"a tensor of shape {list(value.shape)}"
            raise WatchError(f"{name} must be a single number, got {kind}; log its mean")
    elif not isinstance(value, Real):
        raise WatchError(
            f"{name} must be a number or a tensor of one, got {type(value).__name__}; log float(...) of it"
        )
