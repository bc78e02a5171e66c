"""The steps of a call: defaults, autocast, choice of a backend, observer, output, statistics."""

import math
from collections.abc import Hashable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

from . import choice, observe, ops, softmax_twin, validation, visibility
from .auxiliary import AuxOutput, AuxRequest
from .cache import memoize, signature
from .eager import reference
from .options import DECLARED, Options, Packed, check
from .problem import PLAIN, Chosen, Problem


def attend(
    query: Tensor, key: Tensor, value: Tensor, options: Options, packed: Packed, return_aux: AuxRequest | None
) -> tuple[Tensor, AuxOutput | None]:
    """Return the output [B, H, N_q, D] of a call on floating tensors of one device, and the statistics it asks for.

    Calls of one signature are checked, and given to a backend, once.
    """
    query, key, value = _autocast(query, key, value)
    if torch.compiler.is_compiling():
        chosen = _choose(query, key, value, options, packed)
    else:
        try:
            signed = _signature(query, key, value, options, packed)
        except RuntimeError:  # nested and compressed sparse tensors have no sizes or strides to ask for
            validation.check_layouts({"query": query, "key": key, "value": value, **options})
            raise
        chosen = memoize(signed, lambda: _choose(query, key, value, options, packed))
    validation.check_request(return_aux)
    problem = _problem(query, key, value, _bias(query, key, options, packed), options, packed)
    if softmax_twin.active():
        return softmax_twin.attend(problem, return_aux), None
    observer = observe.current()
    observed = None if observer is None else observer.request(query, key)
    output, seen, asked = _attend(problem, chosen, observed, return_aux)
    if observer is not None:
        observer.record(observe.Call(problem.read, output, seen))
    return output, asked


def _signature(query: Tensor, key: Tensor, value: Tensor, options: Options, packed: Packed) -> Hashable:
    """Return all that the checks and the choice of a backend depend on: no tensor's values, nor a bias's number.

    The types of numbers are there because True equals 1 and may be refused.
    """
    kinds, constants = tuple(map(type, options.values())), _CONSTANT(options)
    tensors: tuple[Hashable, ...] = ()
    if not PLAIN.issuperset(kinds):
        tensors = tuple([signature(x) for x in options.values() if isinstance(x, Tensor)])
        constants = tuple([None if isinstance(x, Tensor) else x for x in constants])
    given = signature(query), signature(key), signature(value)
    return "decision", given, kinds, constants, tensors, packed.query_starts is None


_CONSTANT = itemgetter(*(name for name, option in DECLARED.items() if option.constant))


def _choose(query: Tensor, key: Tensor, value: Tensor, options: Options, packed: Packed) -> Chosen:
    """Check a call and choose its backend."""
    validation.check_layouts({"query": query, "key": key, "value": value, **options})
    validation.check_switch("enable_gqa", options["enable_gqa"], query, key)
    validation.check_shapes(query, key, value, options["enable_gqa"], options["page_table"] is not None)
    validation.check_inputs(query, key, value)
    validation.check_cache(options["cached"], options["page_table"], options["key_lengths"], options["attn_mask"])
    check(query, key, options)
    problem = _problem(query, key, value, 0.0, options, packed)
    choice.check(options["backend"], problem.traits)
    chosen = choice.choose(options["backend"], problem.traits)
    return choice.forward(problem) if chosen == "auto" and not torch.compiler.is_compiling() else chosen


def _autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kind = query.device.type
    if query.dtype == torch.float64 or query.is_meta or not torch.is_autocast_enabled(kind):
        return query, key, value
    dtype = torch.get_autocast_dtype(kind)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _problem(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | float, options: Options, packed: Packed
) -> Problem:
    """Return the call with every default filled in; an option that needs none goes into the field of its name."""
    slopes, table, (window, ahead) = options["alibi_slopes"], options["page_table"], _window(options)
    if slopes is not None and slopes.dim() == 2 and slopes.size(0) == 1:
        slopes = slopes[0]
    fields: dict[str, Any] = {
        **options,
        "bias": bias if isinstance(bias, Tensor) else None,
        "bias_value": 0.0 if isinstance(bias, Tensor) else bias,
        "alibi_slopes": None if slopes is None else slopes.detach().to(_working_type(query)).contiguous(),
        "scale": 1.0 / math.sqrt(query.size(3)) if options["scale"] is None else options["scale"],
        "deterministic": _is_deterministic(options),
        "attn_mask": _mask(query, key, options),
        "window": window,
        "page_table": None if table is None else table.to(torch.int32).contiguous(),
        "ahead": ahead,
        "query_starts": packed.query_starts,
        "key_starts": packed.key_starts,
        "max_q": packed.max_q,
        "max_k": packed.max_k,
    }
    for name in _NO_FIELDS:
        del fields[name]
    return Problem(query, key, value, **fields)


_NO_FIELDS = tuple(name for name in DECLARED if name not in Problem._fields)


def _window(options: Options) -> tuple[int | None, int | None]:
    """Return the window and how far it reaches ahead, None where that is as far as behind, or the call is causal."""
    given = options["window"]
    if given is None or not isinstance(given, (tuple, list)):
        return given, None
    left, right = (ALL if side < 0 else int(side) + 1 for side in given)
    if options["is_causal"] or left == right:
        return (None, None) if left == ALL else (left, None)
    return left, right


ALL = 2**31 - 1
"""A window's side that holds every key."""


def _mask(query: Tensor, key: Tensor, options: Options) -> Tensor | None:
    """Return the mask [B, H, N_q, N_k], with sizes of 1 where it is the same for all, but N_k whole."""
    mask = options["attn_mask"]
    if mask is None:
        return None
    mask = mask[(None,) * (4 - mask.dim())]
    if mask.size(3) != key.size(2):
        mask = mask.expand(-1, -1, -1, key.size(2))
    if mask.size(2) > 1 and mask.stride(2) == 0 and not mask.requires_grad:  # a mask of keys that was expanded
        mask = mask[:, :, :1]
    return mask


def _is_deterministic(options: Options) -> bool:
    given = options["deterministic"]
    return torch.are_deterministic_algorithms_enabled() if given is None else given


def _bias(query: Tensor, key: Tensor, options: Options, packed: Packed) -> Tensor | float:
    """Return the bias: the caller's, or −log of the most keys that a row of each sequence may see."""
    if isinstance(options["bias"], Tensor):
        return options["bias"].to(_working_type(query)).contiguous()
    if options["bias"] is not None:
        return options["bias"]
    table = options["page_table"]
    most = packed.max_k or key.size(2) * (1 if table is None else table.size(1))
    window, ahead = _window(options)
    if window is not None:
        held = window if options["is_causal"] else window + (window if ahead is None else ahead) - 1
        most = torch.sym_min(most, held)  # type: ignore[no-untyped-call]
    keys = _most_keys(query, key, options, packed)
    return _level(query, most) if keys is None else -keys.clamp(1, most).to(_working_type(query)).log()[:, None]


def _level(query: Tensor, most: int) -> Tensor | float:
    """Return −log of ``most`` keys, as a tensor [H] where it is a symbol, which a number would bind to one length."""
    if torch.compiler.is_compiling():
        from torch.fx.experimental.symbolic_shapes import has_static_value

        if not has_static_value(most):
            keys = torch.full((query.size(1),), most, dtype=torch.float64, device=query.device)
            return -keys.log().to(_working_type(query))
    return -math.log(most)


def _most_keys(query: Tensor, key: Tensor, options: Options, packed: Packed) -> Tensor | None:
    """Return how many keys lengths and mask leave the row of each sequence that sees most, [B], or None for all."""
    if packed.key_starts is not None:
        return packed.key_starts[1:] - packed.key_starts[:-1]
    lengths, mask = options["key_lengths"], _mask(query, key, options)
    if mask is None:
        return lengths
    valid = visibility.shown(mask)
    if lengths is not None:
        valid = valid & (torch.arange(key.size(2), device=key.device) < lengths[:, None, None, None])
    return valid.sum(-1).amax((1, 2)).expand(query.size(0))


def _working_type(query: Tensor) -> torch.dtype:
    return torch.promote_types(query.dtype, torch.float32)


def _attend(
    problem: Problem, backend: Chosen, observed: AuxRequest | None, asked: AuxRequest | None
) -> tuple[Tensor, AuxOutput | None, AuxOutput | None]:
    """Return the output and the statistics of both requests; equal requests share one result.

    The operator that computes the output measures one of them with it.
    """
    first = asked if observed is None else observed
    if first is None:
        return _run(problem, backend, None)[0], None, None
    output, statistics = _run(problem, backend, _sampling(problem, first))
    name = choice.forward(problem) if backend == "auto" else backend
    aux = AuxOutput(statistics, name, choice.form_of(problem, name))
    if asked is None or observed is None or asked == observed:
        return output, aux if observed else None, aux if asked else None
    sums = statistics[..., 0].contiguous()
    return output, aux, aux._replace(statistics=_measure(problem, backend, sums, _sampling(problem, asked)))


def _sampling(problem: Problem, request: AuxRequest) -> ops.Sampling:
    return request.rows, request.offset, problem.batch if request.sequences is None else request.sequences


def _run(problem: Problem, backend: Chosen, sampling: ops.Sampling | None) -> tuple[Tensor, Tensor]:
    """Return output and statistics; the latter are undefined where none are asked for."""
    if backend != "eager":
        return ops.attend(problem, sampling, backend)
    output = reference.sigmoid_attention(problem)
    if sampling is None:
        return output, output
    return output, _measure(problem, backend, reference.output_square_sum(problem, output), sampling)


def _measure(problem: Problem, backend: Chosen, sums: Tensor, sampling: ops.Sampling) -> Tensor:
    """Return the statistics that ``sampling`` asks for, given Σ out² [B, H]."""
    if backend != "eager":
        return ops.row_statistics(problem, sums, sampling)
    return reference.statistics(_detached(problem), sums, *sampling)


def _detached(problem: Problem) -> Problem:
    given: dict[str, Any] = {name: x.detach() for name, x in problem._asdict().items() if isinstance(x, Tensor)}
    return problem._replace(**given)
