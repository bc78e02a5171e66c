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

    query, output: [B, H, N_q, D]. key, value: [B, H_k, N_k, D]. bias: a number, [H] float32, or [B, 1] where each
    sequence has its own. alibi_slopes: [H] or None.
    aux: what the observer's own request asked for, or None when it asked for nothing.
    window, key_lengths: as in ``sigmoid_attention``. query_starts, key_starts, max_q, max_k: packed sequences, as in
    ``Problem``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | float
    scale: float
    is_causal: bool
    alibi_slopes: Tensor | None
    output: Tensor
    aux: AuxOutput | None
    window: int | None = None
    key_lengths: Tensor | None = None
    query_starts: Tensor | None = None
    key_starts: Tensor | None = None
    max_q: int = 0
    max_k: int = 0

    def sequences(self, read: slice) -> "Call":
        """Return the call with the queries, keys, values and lengths of the sequences ``read`` alone."""
        bias, lengths = self.bias, self.key_lengths
        return self._replace(
            query=self.query[read],
            key=self.key[read],
            value=self.value[read],
            bias=bias[read] if isinstance(bias, Tensor) and bias.dim() == 2 else bias,
            key_lengths=None if lengths is None else lengths[read],
        )

    @property
    def problem(self) -> Problem:
        """The call as ``reference`` takes it."""
        bias, number = (self.bias, 0.0) if isinstance(self.bias, Tensor) else (None, self.bias)
        return Problem(
            *self[:3],
            bias,
            number,
            self.alibi_slopes,
            self.scale,
            self.is_causal,
            self.window,
            self.key_lengths,
            self.query_starts,
            self.key_starts,
            self.max_q,
            self.max_k,
        )


def call_of(problem: Problem, output: Tensor, aux: AuxOutput | None) -> Call:
    """Return what the observer is shown of ``problem``."""
    return Call(
        *problem[:3],
        problem.any_bias,
        problem.scale,
        problem.is_causal,
        problem.alibi_slopes,
        output,
        aux,
        problem.window,
        problem.key_lengths,
        problem.query_starts,
        problem.key_starts,
        problem.max_q,
        problem.max_k,
    )


class Observer(Protocol):
    """What the slot holds. Both methods are traced by ``torch.compile`` when the caller is."""

    def request(self, query: Tensor, key: Tensor) -> AuxRequest | None:
        """Say which statistics to compute for this call, if any."""

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
