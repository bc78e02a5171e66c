"""Modules that call ``F.scaled_dot_product_attention``: while their forward runs, the call is sigmoid attention."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stabmon.conversion import additions, calls
from stabmon.conversion.changes import put
from stabmon.conversion.lengths import longest
from stabmon.conversion.report import Kept
from stabmon.conversion.work import Work
from stabmon.doors import scaled_dot_product as door
from stabmon.doors.form import beginning_together
from stabmon.kernels import sigmoid_attention

NAME = "scaled_dot_product_attention"

_FLAGS = ("flash", "use_flash", "flash_attn", "fused_attn", "use_sdpa")
"""Attributes that choose between SDPA and a softmax of the module's own."""

log = logging.getLogger(__name__)


def convert(work: Work) -> None:
    """Convert the modules of ``work`` whose code calls SDPA."""
    for name, module in list(work.remaining()):
        if calls.names(module, NAME) and not isinstance(module, nn.MultiheadAttention):
            if flag := next((flag for flag in _FLAGS if getattr(module, flag, None) is False), None):
                work.kept.append(Kept(name, f"it computes softmax itself while its attribute {flag} is False"))
            else:
                work.attempt(NAME, name, partial(swap, work, name, _length(work, module)))


def swap(work: Work, name: str, length: int | None, undo: ExitStack) -> float:
    """Give the module ``name`` the class that runs its forward with SDPA swapped, and return its bias."""
    module = work.model.get_submodule(name)
    start = work.add(name, length, undo)
    put(module, "__class__", _sigmoid_class(module.__class__), undo)  # type: ignore[arg-type] # mypy takes Module.__hash__
    return start


def _length(work: Work, module: nn.Module) -> int | None:
    return longest(getattr(module, "config", None)) or longest(getattr(work.model, "config", None))


@cache
def _sigmoid_class(kind: type[nn.Module]) -> type[nn.Module]:
    """Return the subclass of ``kind`` whose forward is that of ``kind`` with SDPA swapped."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        before, door.conversion.answers = door.conversion.answers, True
        try:
            with _SigmoidForSoftmax(self) as swapped:
                output = kind.forward(self, *args, **kwargs)
        finally:
            door.conversion.answers = before
        if not torch.compiler.is_compiling() and not swapped.calls:
            _warn_of_no_call(kind.__name__)
        return output

    return type(f"Sigmoid{kind.__name__}", (kind,), {"forward": forward, "__module__": kind.__module__})


@cache
def _warn_of_no_call(name: str) -> None:
    log.warning("the converted %s did not call SDPA in a forward pass: it may compute softmax by other means", name)


class _SigmoidForSoftmax(TorchFunctionMode):
    """Answers the calls of SDPA by sigmoid attention with the bias and norms of ``module``."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call ``func``, or sigmoid attention in its place."""
        if func is door.original:
            self.calls += 1
            return _attend(self.module, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return sigmoid attention for SDPA's arguments, whose causal mask begins with the first key.

    Raises:
        ValueError: the tensors have not three or four dimensions, or a mask is given beside ``is_causal``.
    """
    if query.dim() not in (3, 4):
        raise ValueError(f"query must have 3 or 4 dimensions in a converted {type(module).__name__}, got {query.dim()}")
    if is_causal and attn_mask is not None:
        raise ValueError("attn_mask must be None where is_causal is set, as in scaled_dot_product_attention")
    if dropout_p > 0 and not torch.compiler.is_compiling():
        additions.log_ignored_dropout(type(module).__name__)
    if query.dim() == 3:  # one head without a dimension of its own
        query, key, value = query[:, None], key[:, None], value[:, None]
        mask = attn_mask[:, None] if attn_mask is not None and attn_mask.dim() == 3 else attn_mask
        return _attend(module, query, key, value, mask, 0.0, is_causal, scale=scale)[:, 0]
    if key.size(1) == 1 != query.size(1):  # SDPA broadcasts one key head to all
        enable_gqa = True
    attn_mask, is_causal = beginning_together(query, key, attn_mask, is_causal)
    bias: Tensor | float = getattr(module, additions.BIAS)
    query, key = additions.normed(module, query, key, value.dtype)
    return sigmoid_attention(
        query, key, value, bias=bias, scale=scale, is_causal=is_causal, attn_mask=attn_mask, enable_gqa=enable_gqa
    )
