"""The arguments of a call as they were given, before any default is filled in."""

from typing import NamedTuple

from torch import Tensor

from .auxiliary import AuxRequest
from .launch import Backend
from .problem import Form


class Options(NamedTuple):
    """The keyword arguments that every function of the interface shares, as they were given."""

    bias: Tensor | float | None
    scale: float | None
    is_causal: bool
    window: int | None
    alibi_slopes: Tensor | None
    enable_gqa: bool
    deterministic: bool | None
    return_aux: AuxRequest | None
    backend: Backend
    form: Form


class Lengths(NamedTuple):
    """What a call says about the lengths of its sequences; the fields of ``Problem``."""

    key_lengths: Tensor | None = None
    query_starts: Tensor | None = None
    key_starts: Tensor | None = None
    max_q: int = 0
    max_k: int = 0

    def keys(self) -> Tensor | None:
        """Return how many valid keys each sequence has, [B], or None where all have the same number."""
        if self.key_starts is not None:
            return self.key_starts[1:] - self.key_starts[:-1]
        return self.key_lengths
