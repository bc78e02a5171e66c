"""The options of a call: the keyword arguments that every public function shares, their types and defaults."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, TypeVar

from torch import Tensor

from .problem import Backend, Form

F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The options as they are given; ``sigmoid_attention`` says what each means."""

    bias: Tensor | float | None
    scale: float | None
    is_causal: bool
    window: int | None
    alibi_slopes: Tensor | None
    enable_gqa: bool
    deterministic: bool | None
    backend: Backend
    form: Form


DEFAULTS: Options = {
    "bias": None,
    "scale": None,
    "is_causal": False,
    "window": None,
    "alibi_slopes": None,
    "enable_gqa": False,
    "deterministic": None,
    "backend": "auto",
    "form": "auto",
}


def complete(given: Options) -> Options:
    """Return ``given`` with the defaults of what is missing.

    Raises:
        TypeError: an option has an unknown name.
    """
    options: Options = {**DEFAULTS, **given}
    if len(options) > len(DEFAULTS):
        unknown = next(name for name in given if name not in DEFAULTS)
        raise TypeError(f"unknown option {unknown!r}; expected one of {', '.join(map(repr, DEFAULTS))}")
    return options


def spelled_out(function: F) -> F:
    """Return ``function`` with the options in place of ``**options`` in the signature that ``help`` shows."""
    signature = inspect.signature(function)
    own = [of for of in signature.parameters.values() if of.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Options.__annotations__[name]
        )
        for name, default in DEFAULTS.items()
    ]
    function.__dict__["__signature__"] = signature.replace(parameters=[*own, *options])
    return function


class Lengths(NamedTuple):
    """The lengths of a call's sequences; the fields of ``Problem``."""

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
