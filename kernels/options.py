"""The options of a call: the keyword arguments that every public function shares, declared once.

An option has a type in ``Options`` and a line in ``DECLARED``: its default, its check and its documentation. An option
that is a field of ``Problem`` by the same name reaches every backend; one that does not list it refuses the call.
"""

import inspect
import numbers
import textwrap
from collections.abc import Callable
from types import NoneType
from typing import Any, NamedTuple, TypedDict, TypeVar, get_args

from torch import Tensor
from torch.nn import Parameter

from . import validation
from .problem import Backend, Form

F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The options as they are given; ``DECLARED`` says what each means."""

    bias: Tensor | float | None
    scale: float | None
    is_causal: bool
    window: int | tuple[int, int] | None
    alibi_slopes: Tensor | None
    key_lengths: Tensor | None
    attn_mask: Tensor | None
    page_table: Tensor | None
    cached: bool
    enable_gqa: bool
    deterministic: bool | None
    backend: Backend
    form: Form


class Option(NamedTuple):
    """One option.

    check: refuses a value that does not fit query and key [B, H, N, D].
    text: its documentation.
    packed: whether packed sequences take it.
    constant: whether its value, and not only its type, decides which backend takes a call, and is the same in many.
    """

    default: Any
    check: validation.Check
    text: str
    packed: bool = True
    constant: bool = True


DECLARED: dict[str, Option] = {
    "bias": Option(
        None,
        validation.check_bias,
        "added to every logit: None for −log of the most keys that a row of each sequence may see (N_k, or what "
        "lengths, window and mask leave of it), a number, or a tensor [H] that receives its gradient. A model "
        "that sees several lengths should pass -log of its longest training length.",
        constant=False,
    ),
    "scale": Option(None, validation.check_scale, "factor of q·k; 1/√D by default."),
    "is_causal": Option(
        False,
        validation.check_switch,
        "query i sees keys j <= i' = i + N_k - N_q: the sequences end together, the last query sees every key, "
        "and a query without a key gives 0.",
    ),
    "window": Option(
        None,
        validation.check_window,
        "how far a query sees: keys i' - window < j <= i' if causal, |i' - j| < window if not, at least 1. A pair "
        "(left, right) means keys i' - left <= j <= i' + right, with -1 for all on that side.",
    ),
    "alibi_slopes": Option(
        None,
        validation.check_slopes,
        "[H], or [B, H] where each sequence has its own: subtracts slope·|i' - j| from the logit; receives no "
        "gradient.",
    ),
    "key_lengths": Option(
        None,
        validation.check_key_lengths,
        "[B] integers, only keys j < key_lengths[b] are valid: padding on the right, of keys. Positions stay "
        "those of the padded tensors. A length above N_k counts as N_k, one of 0 makes the sequence's output 0.",
        packed=False,
    ),
    "attn_mask": Option(
        None,
        validation.check_mask,
        "broadcastable to [B, H, N_q, N_k]. Boolean: True where a query may see a key, besides what the other "
        "options allow. Floating: added to the logit, and receives its gradient; a pair is hidden where it is at "
        "most -8192, as -inf, -1e4 and the lowest number of a type are. A row of which all is hidden gives 0. "
        "A mask of keys alone, [B, 1, 1, N_k], is the fast one.",
        packed=False,
    ),
    "page_table": Option(
        None,
        validation.check_page_table,
        "[B, P] integers: key and value are the pages of a cache, [pages, H_k, page size, D] in any strides, and the "
        "keys of sequence b are those of the pages page_table[b], so N_k is P times the page size. What lies at or "
        "beyond key_lengths is not read, nor are the numbers of its pages. Not with attn_mask; the gradient by eager.",
        packed=False,
    ),
    "cached": Option(
        False,
        validation.check_switch,
        "key and value are a cache with room at the end: the queries of sequence b are the last of its key_lengths "
        "keys, i' = i + key_lengths[b] - N_q, and what lies beyond is not read. Not with attn_mask; the gradient by "
        "eager.",
        packed=False,
    ),
    "enable_gqa": Option(
        False, validation.check_switch, "allow fewer key heads than query heads; consecutive query heads share one."
    ),
    "deterministic": Option(
        None,
        validation.check_switch_or_none,
        "whether the gradients are to be the same bits in every run; None follows "
        "``torch.use_deterministic_algorithms``. eager and triton always are, on one device and version; hopper "
        "takes a slower way to the query's gradient.",
        constant=False,
    ),
    "backend": Option(
        "auto",
        validation.one_of(get_args(Backend)),
        '"eager" (plain PyTorch, any device and float type; holds all weights of a head), "triton" (CUDA '
        "capability 8.0 and newer, float16, bfloat16, float32, head dims 16 to 256 in multiples of 8), "
        '"split_keys" (as triton, its forward for grids that do not fill the device, such as decoding, without '
        'packed sequences; gradients as by auto), "hopper" (CUDA capability 9.0, what ``hopper/requirements.py`` '
        'lets through), or "auto": the fastest of these by ``triton/splitting.py``, else eager.',
    ),
    "form": Option(
        "auto",
        validation.one_of(get_args(Form)),
        'how a fused forward computes sigmoid: "accurate", "tanh" (one special-function operation, loses small '
        'weights), or "auto": tanh only where type and bias keep its error within the bound under Numerics. Which'
        " one was taken is in ``AuxOutput.form``.",
    ),
}
DEFAULTS: Options = {name: option.default for name, option in DECLARED.items()}  # type: ignore[assignment]
PACKED = frozenset(name for name, option in DECLARED.items() if option.packed)
"""The names of the options that packed sequences take."""
_PLAIN = frozenset({int, float, bool, str, NoneType, Tensor, Parameter})
"""The types that options usually have."""


def complete(given: Options, packed: bool = False) -> Options:
    """Return ``given`` with the defaults of what is missing.

    Raises:
        TypeError: an option has an unknown name, or one that packed sequences do not take.
    """
    options: Options = {**DEFAULTS, **given}
    if len(options) > len(DEFAULTS):
        unknown = next(name for name in given if name not in DEFAULTS)
        raise TypeError(f"unknown option {unknown!r}; expected one of {', '.join(map(repr, DEFAULTS))}")
    if packed and not PACKED.issuperset(given):
        refused = next(name for name in given if name not in PACKED)
        raise TypeError(f"packed sequences do not take {refused}")
    for name, value in given.items():
        if type(value) not in _PLAIN:
            options[name] = plain(value)  # type: ignore[literal-required]
    return options


def plain(given: Any) -> Any:
    """Return a number of another library, such as numpy's, as Python's int or float, and anything else as it is."""
    if type(given) in _PLAIN or isinstance(given, Tensor):
        return given
    if isinstance(given, numbers.Integral):
        return int(given)
    return float(given) if isinstance(given, numbers.Real) else given


def check(query: Tensor, key: Tensor, options: Options) -> None:
    """Refuse options that do not fit query and key [B, H, N, D], whose shapes fit together.

    Raises:
        TypeError, ValueError: an option is of the wrong type, or its value does not fit.
    """
    for name, given in options.items():
        DECLARED[name].check(name, given, query, key)


def spelled_out(packed: bool) -> Callable[[F], F]:
    """Return a decorator that puts the options in place of ``**options`` into signature and docstring, for ``help``.

    The docstring's line "options: ..." gives way to the documentation of each.
    """
    names = [name for name in DEFAULTS if name in PACKED or not packed]

    def spell(function: F) -> F:
        signature = inspect.signature(function)
        own = [of for of in signature.parameters.values() if of.kind is not inspect.Parameter.VAR_KEYWORD]
        options = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=DECLARED[name].default,
                annotation=Options.__annotations__[name],
            )
            for name in names
        ]
        function.__dict__["__signature__"] = signature.replace(parameters=[*own, *options])
        lines = (function.__doc__ or "").split("\n")
        function.__doc__ = "\n".join(
            found for line in lines for found in (map(_documented, names) if "    options: " in line else (line,))
        )
        return function

    return spell


def _documented(name: str) -> str:
    text = f"{name}: {DECLARED[name].text}"
    return textwrap.fill(text, 120, initial_indent=" " * 8, subsequent_indent=" " * 12)


class Packed(NamedTuple):
    """The lengths of packed sequences; the fields of ``Problem``, and its defaults for padded ones."""

    query_starts: Tensor | None = None
    key_starts: Tensor | None = None
    max_q: int = 0
    max_k: int = 0
