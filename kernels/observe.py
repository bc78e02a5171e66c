"""One process-wide slot for an observer that sees every call of ``sigmoid_attention``.

The slot is a plain attribute, so ``torch.compile`` reads it as a guarded constant: no graph break, and a graph compiled
without an observer is compiled again once there is one.
"""

from typing import NamedTuple, Protocol

from torch import Tensor

from .auxiliary import AuxOutput, AuxRequest
from .problem import Problem


class Call(NamedTuple):
    """One call as it was computed, after defaults and autocast.

    output: [B, H, N_q, D].
    aux: what the observer's own request asked for, or None when it asked for nothing.
    """

    problem: Problem
    output: Tensor
    aux: AuxOutput | None = None


class Observer(Protocol):
    """An observer of calls. Both methods are traced by ``torch.compile`` when the caller is."""

    def request(self, query: Tensor, key: Tensor) -> AuxRequest | None:
        """Return which statistics to compute for this call, if any."""

    def record(self, call: Call) -> None:
        """Take note of a call; runs once per call, also without statistics."""


class _Slot:
    observer: Observer | None = None


_slot = _Slot()


def current() -> Observer | None:
    """Return the observer, if there is one."""
    return _slot.observer


def swap(observer: Observer | None) -> Observer | None:
    """Put ``observer`` (or nothing) into the slot and return what was there before."""
    previous, _slot.observer = _slot.observer, observer
    return previous
