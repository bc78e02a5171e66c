# mypy: disable-error-code="no-untyped-call"
"""The fused backends as PyTorch operators: traced whole by torch.compile, with autograd; only their inputs are kept.

stabmon::sigmoid_attention, stabmon::sigmoid_attention_backward and stabmon::row_statistics take the fields of a
``Problem``. Kernels, and with them triton, are imported when an operator first runs.
``torch.library.Library`` and not ``custom_op``, whose layers between autograd and a kernel take several times as long
as launching it.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch._C import DispatchKey, DispatchKeySet
from torch._compile import _disable_dynamo
from torch.autograd import forward_ad

from . import choice, flops
from .cache import memoize
from .eager import reference
from .problem import FIELDS, Problem

Sampling = tuple[int, float, int]
"""The rows to measure as the operators take them: rows, offset, sequences."""

_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    float: "float",
    bool: "bool",
    int: "SymInt",
    int | None: "SymInt?",
    str: "str",
}
SCHEMA = ", ".join(f"{_TYPES[kind]} {name}" for name, kind in Problem.__annotations__.items())
"""``Problem`` as an operator's arguments."""
_LIBRARY = torch.library.Library("stabmon", "DEF")
_BELOW = torch._C._after_autograd_keyset
_REST = _BELOW - DispatchKeySet(DispatchKey.ADInplaceOrView) - DispatchKeySet(DispatchKey.BackendSelect)
_DEVICES = (DispatchKey.CUDA, DispatchKey.CPU)
_UNMEASURED: Sampling = (-1, 0.0, 0)


def attend(problem: Problem, sampling: Sampling | None, backend: str) -> tuple[Tensor, Tensor]:
    """Return the output [B, H, N_q, D] and ``STATISTICS`` [B, H, 9] float32, by "triton" or "hopper".

    sampling: None for no statistics, an empty tensor.
    """
    output, statistics = sigmoid_attention_op(*problem, *(sampling or _UNMEASURED), backend)
    return output, statistics


def row_statistics(problem: Problem, sums: Tensor, sampling: Sampling) -> Tensor:
    """Return ``STATISTICS`` [B, H, 9] float32, the first of which are ``sums`` [B, H], of another request."""
    measured: Tensor = row_statistics_op(*problem, sums, *sampling)
    return measured


def _operator(
    name: str, schema: str, compute: Callable[..., Any], fake: Callable[..., Any]
) -> torch._ops.OpOverload[..., Any]:
    """Define stabmon::``name``, which ``compute`` runs and whose results look like those of ``fake``.

    Dynamo is kept out, as ``custom_op`` does: it would trace into kernels that run beside a compiled frame.
    """
    _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _LIBRARY.impl(name, _disable_dynamo(compute), "CompositeExplicitAutograd")
    torch.library.register_fake(f"stabmon::{name}", fake, lib=_LIBRARY)
    found: torch._ops.OpOverload[..., Any] = getattr(torch.ops.stabmon, name).default
    return found


@cache
def _runs(name: str) -> Mapping[str, Callable[..., Tensor]]:
    """Return a function of the kernels, "forward" or "backward", by backend."""
    from .hopper import backward_launch, forward_launch
    from .triton import backward, forward, split

    if name == "forward":
        fused = {"triton": forward.forward, "split_keys": split.forward, "hopper": forward_launch.forward}
        return {**fused, "auto": partial(_choose, choice.forward, fused)}
    gradients: Mapping[str, Callable[..., Tensor]] = {"triton": backward.backward, "hopper": backward_launch.backward}
    chosen = partial(_choose, choice.gradients, gradients)
    return {**gradients, "split_keys": chosen, "auto": chosen}


def _choose(
    choose: Callable[[Problem], choice.Fused], runs: Mapping[str, Callable[..., Tensor]], problem: Problem, *given: Any
) -> Tensor:
    """Run the function of the backend that is the fastest for ``problem``."""
    key = choose.__name__, problem.layout, problem.scale
    return runs[memoize(key, lambda: choose(problem))](problem, *given)


def _compute_attention(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Return output and statistics of ``Problem``'s fields, a ``Sampling`` and ``backend``; rows < 0: no statistics."""
    problem, (rows, offset, sequences, backend) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    output, measure = _result_like(problem, problem.query), None
    if rows >= 0:
        from .triton.statistics_launch import begin

        measure = partial(begin, rows=rows, offset=offset, sequences=sequences, early=True)
        if _is_cache(problem):
            measure = partial(_begin_by_eager, rows=rows, offset=offset, sequences=sequences)
    return output, _runs("forward")[backend](problem, output, measure)


def _is_cache(problem: Problem) -> bool:
    return problem.cached or problem.page_table is not None


def _begin_by_eager(problem: Problem, rows: int, offset: float, sequences: int) -> Callable[[Tensor], Tensor]:
    """Return a function of Σ out² [B, H, N_q] that returns statistics, for calls that their kernels do not take."""
    return lambda sums: reference.statistics(problem, sums.sum(-1), rows, offset, sequences)


def _result_like(problem: Problem, tensor: Tensor) -> Tensor:
    """Return memory for a result; packed tensors may be longer than their sequences, and kernels write only these."""
    return torch.empty_like(tensor) if problem.query_starts is None else torch.zeros_like(tensor)


def _fake_attention(*arguments: Any) -> tuple[Tensor, Tensor]:
    problem, (rows, *_) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    query = problem.query
    statistics = _fake_statistics(*arguments) if rows >= 0 else query.new_empty((0,), dtype=torch.float32)
    return torch.empty_like(query), statistics


Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""The gradients of query, key, value, bias and mask; those of bias and mask are empty unless they are asked for."""


def _compute_gradients(grad: Tensor, *arguments: Any) -> Gradients:
    """Return the gradients of ``Problem``'s fields, whether those of bias and mask are asked for, and ``backend``."""
    problem, (bias_gradient, mask_gradient, backend) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    query, key, value = problem[:3]
    grads = _result_like(problem, query), _result_like(problem, key), _result_like(problem, value)
    grad_mask = _gradient_of_mask(problem, mask_gradient)
    grad = grad if grad.stride(-1) == 1 else grad.contiguous()
    outputs = (*grads, grad_mask) if mask_gradient else grads
    return *grads, _runs("backward")[backend](problem, grad, outputs, bias_gradient), grad_mask


def _gradient_of_mask(problem: Problem, asked: bool) -> Tensor:
    mask = problem.attn_mask
    return mask.new_empty(mask.shape) if asked and mask is not None else problem.query.new_empty((0,))


_untraced_gradients = _disable_dynamo(_compute_gradients)


def _fake_gradients(_: Tensor, *arguments: Any) -> Gradients:
    problem, (bias_gradient, mask_gradient, _) = Problem(*arguments[:FIELDS]), arguments[FIELDS:]
    query, key, value = problem[:3]
    grad_bias = query.new_empty((query.size(1),) if bias_gradient else (0,), dtype=torch.float32)
    grad_mask = _gradient_of_mask(problem, mask_gradient)
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), grad_bias, grad_mask


def _compute_statistics(*arguments: Any) -> Tensor:
    """Return the statistics [B, H, 9] float32 of ``Problem``'s fields, sums and a ``Sampling``."""
    from .triton.statistics_launch import row_statistics

    problem = Problem(*arguments[:FIELDS])
    measure = reference.statistics if _is_cache(problem) else row_statistics
    return measure(problem, *arguments[FIELDS:])


def _fake_statistics(*arguments: Any) -> Tensor:
    problem = Problem(*arguments[:FIELDS])
    return problem.query.new_empty((problem.batch, problem.query.size(1), 9), dtype=torch.float32)


sigmoid_attention_op = _operator(
    "sigmoid_attention",
    f"({SCHEMA}, SymInt rows, float offset, SymInt sequences, str backend) -> (Tensor, Tensor)",
    _compute_attention,
    _fake_attention,
)
backward_op = _operator(
    "sigmoid_attention_backward",
    f"(Tensor grad, {SCHEMA}, bool bias_gradient, bool mask_gradient, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _compute_gradients,
    _fake_gradients,
)
row_statistics_op = _operator(
    "row_statistics",
    f"({SCHEMA}, Tensor sums, SymInt rows, float offset, SymInt sequences) -> Tensor",
    _compute_statistics,
    _fake_statistics,
)

_TENSORS = tuple(i for i, kind in enumerate(Problem.__annotations__.values()) if kind in (Tensor, Tensor | None))
"""The indices of ``Problem``'s tensors."""
_DIFFERENTIABLE = (*range(4), Problem._fields.index("attn_mask"))
"""The indices of the tensors that receive a gradient: query, key, value, bias and mask."""


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, keys: DispatchKeySet, *arguments: Any) -> tuple[Tensor, Tensor]:
        rest = list(arguments[:FIELDS])
        for i in _TENSORS:
            rest[i] = None
        ctx.save_for_backward(*[arguments[i] for i in _TENSORS])
        ctx.rest, ctx.backend = rest, arguments[-1]
        ctx.set_materialize_grads(False)
        output, statistics = _below(keys, sigmoid_attention_op, _compute_attention, arguments)
        ctx.mark_non_differentiable(statistics)
        return output, statistics

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        given = ctx.rest.copy()
        for i, tensor in zip(_TENSORS, ctx.saved_tensors, strict=True):
            given[i] = tensor
        wanted = [ctx.needs_input_grad[1 + i] for i in _DIFFERENTIABLE]
        run = _Gradients.apply if torch.is_grad_enabled() else _differentiate
        found: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for i, each, asked in zip(_DIFFERENTIABLE, run(grad, *given, *wanted[3:], ctx.backend), wanted, strict=True):
            found[1 + i] = each if asked else None
        return tuple(found)


def _differentiate(grad: Tensor, *arguments: Any) -> Any:
    """Compute gradients, without autograd; by the dispatcher only where a mode or a trace asks for it."""
    keys = torch._C._dispatch_keys(grad) | torch._C._dispatch_tls_local_include_set()
    for i in _TENSORS:
        if arguments[i] is not None:
            keys = keys | torch._C._dispatch_keys(arguments[i])
    if _reach_device(keys):
        return _untraced_gradients(grad, *arguments)
    return backward_op(grad, *arguments)


class _Gradients(torch.autograd.Function):
    """Gradients that refuse second derivatives."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        grads: tuple[Tensor, ...] = backward_op(*arguments)
        return grads

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError("gradients of sigmoid_attention have no derivative; pass backend='eager' for second ones")


def _attend(keys: DispatchKeySet, *arguments: Any) -> Any:
    if forward_ad._current_level >= 0 and any(_has_tangent(arguments[i]) for i in _DIFFERENTIABLE):
        raise RuntimeError("sigmoid_attention has no forward-mode derivative; pass backend='eager' for one")
    given = [arguments[i] for i in _DIFFERENTIABLE if arguments[i] is not None]
    if torch.is_grad_enabled() and any(x.requires_grad for x in given):
        if _is_cache(Problem(*arguments[:FIELDS])):
            raise RuntimeError("sigmoid_attention has no gradient through a cache; pass backend='eager' for one")
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise RuntimeError("sigmoid_attention has no gradient under torch.func; pass backend='eager' for one")
        return _Attention.apply(keys, *arguments)
    return _below(keys, sigmoid_attention_op, _compute_attention, arguments)


def _has_tangent(tensor: Tensor | None) -> bool:
    return tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None


def _measure(keys: DispatchKeySet, *arguments: Any) -> Any:
    """Statistics have no gradient."""
    return _below(keys, row_statistics_op, _compute_statistics, arguments)


def _reach_device(keys: DispatchKeySet) -> bool:
    """Return whether, below autograd, nothing comes between a call with these keys and the device."""
    return (keys & _REST).highestPriorityTypeId() in _DEVICES


def _below(keys: DispatchKeySet, operator: Any, compute: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Compute without autograd; by the dispatcher only where a mode or a trace comes between it and the device."""
    with torch._C._AutoDispatchBelowAutograd():
        if _reach_device(keys):
            return compute(*arguments)
        return operator.redispatch(keys & _BELOW, *arguments)


_LIBRARY.impl("sigmoid_attention", _disable_dynamo(_attend), "Autograd", with_keyset=True)
_LIBRARY.impl("row_statistics", _disable_dynamo(_measure), "Autograd", with_keyset=True)
flops.offer()
