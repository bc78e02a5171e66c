"""One slot a thread for an observer that sees every call of ``sigmoid_attention`` in it.

The slot is a plain attribute, so ``torch.compile`` reads it as a guarded constant: no graph break, and a graph compiled
without an observer is compiled again once there is one.
"""

import threading
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from .auxiliary import AuxOutput, AuxRequest
from .problem import Problem


class Call(NamedTuple):
    """One call as it was computed, after defaults and autocast.

    output: [B, H, N_q, D].
    aux: what the observer's own request asked for, or None when it asked for nothing.
    kind: "softmax" where the call is another function's, shown by who wraps it; ``problem`` then has no bias.
    door: name of the function or module through which the call was seen.
    returned: the tensor that the caller gets, where that is another form of ``output``.
    row_logits: where ``problem`` does not hold all that makes the logits: a function of query rows [R] and a slice of
        the sequences that returns z [B, H, R, N_k], -inf where a key is not valid.
    """

    problem: Problem
    output: Tensor
    aux: AuxOutput | None = None
    kind: Literal["sigmoid", "softmax"] = "sigmoid"
    door: str = "stabmon.kernels.sigmoid_attention"
    returned: Tensor | None = None
    row_logits: Callable[[Tensor, slice], Tensor] | None = None


class Observer(Protocol):
    """An observer of calls. Its methods are traced by ``torch.compile`` when the caller is."""

    def request(self, query: Tensor, key: Tensor) -> AuxRequest | None:
        """Return which statistics to compute for this call, if any."""

    def record(self, call: Call) -> None:
        """Take note of a call; runs once per call, also without statistics."""

    def show(self, made: Callable[..., Call], *args: Any, **kwargs: Any) -> None:
        """Take note of another function's call, as ``made`` describes it of these arguments; never raise."""


class _Slot(threading.local):
    """Of each thread its own: a model that trains in one thread does not see the calls of another's."""

    def __init__(self) -> None:
        self.observer: Observer | None = None  # of the instance from the start: a graph is guarded by its attributes


_slot = _Slot()


def current() -> Observer | None:
    """Return the observer, if there is one."""
    return _slot.observer


def swap(observer: Observer | None) -> Observer | None:
    """Put ``observer`` (or nothing) into the slot and return what was there before."""
    previous, _slot.observer = _slot.observer, observer
    return previous
