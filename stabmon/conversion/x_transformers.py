"""Models of x-transformers: their ``Attend``, with softmax or, by ``attn_sigmoid``, sigmoid weights of bias 0."""

import sys
from contextlib import ExitStack
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from stabmon.conversion import additions
from stabmon.conversion.changes import put
from stabmon.conversion.lengths import longest
from stabmon.conversion.report import Kept
from stabmon.conversion.work import ALREADY, Work
from stabmon.doors import x_transformers as door
from stabmon.errors import ModelError
from stabmon.kernels import sigmoid_attention


def convert(work: Work) -> None:
    """Convert every ``Attend`` of ``work`` whose weights are softmax of the logits."""
    for name, module in list(work.remaining()):
        if type(module) is _attend():
            if is_sigmoid(module):
                work.kept.append(Kept(name, ALREADY))
            else:
                work.attempt("x-transformers", name, partial(_convert, work, name, module))


def is_sigmoid(module: nn.Module) -> bool:
    """Return whether ``module`` is an ``Attend`` of the library with sigmoid weights, as ``take_over`` takes."""
    if type(module) is not _attend():
        return False
    try:
        return door.kind_of(module) == "sigmoid"
    except ValueError:
        return False


def take_over(module: nn.Module, undo: ExitStack) -> None:
    """Let an ``Attend`` with sigmoid weights run through stabmon's, with the bias 0 that it has; others stay."""
    if is_sigmoid(module):
        put(module, additions.BIAS, 0.0, undo)
        put(module, "__class__", _sigmoid_class(), undo)


def _convert(work: Work, name: str, module: nn.Module, undo: ExitStack) -> float:
    try:
        door.kind_of(module)
    except ValueError as reason:
        raise ModelError(str(reason)) from reason
    start = work.add(name, _length(work.model, name), undo)
    put(module, "__class__", _sigmoid_class(), undo)
    return start


def _length(model: nn.Module, name: str) -> int | None:
    """Return the longest training length that a module around the attention says."""
    while name:
        name = name.rpartition(".")[0]
        found = longest(model.get_submodule(name))
        if found is not None:
            return found
    return None


def _attend() -> Any:
    """Return the class, or None where the library is not loaded."""
    return getattr(sys.modules.get("x_transformers.attend"), "Attend", None)


@cache
def _sigmoid_class() -> Any:
    """Return the subclass of ``Attend`` whose forward is sigmoid attention; without what other layers may read."""
    from x_transformers.attend import Attend, Intermediates  # type: ignore[import-untyped]

    class SigmoidAttend(Attend):  # type: ignore[misc] # untyped
        def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
            return _attend_by_sigmoid(self, *args, **kwargs), Intermediates()

    return SigmoidAttend


def _attend_by_sigmoid(module: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Return the output [B, H, N_q, D] for the arguments of ``Attend``'s forward.

    Raises:
        ValueError: they ask for weights of another form.
    """
    if module.training and module.dropout > 0 and not torch.compiler.is_compiling():
        additions.log_ignored_dropout("x-transformers' Attend")
    problem = door.problem_of(module, *args, **kwargs)
    query, key = additions.normed(module, problem.query, problem.key, problem.value.dtype)
    return sigmoid_attention(
        query,
        key,
        problem.value,
        bias=module.sigmoid_bias,
        scale=problem.scale,
        is_causal=problem.is_causal,
        attn_mask=problem.attn_mask,
        enable_gqa=True,
    )
