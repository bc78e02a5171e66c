"""The steps of a call: defaults, autocast, choice of a backend, observer, output, statistics."""

import math
from collections.abc import Hashable

import torch
from torch import Tensor

from . import choice, observe, ops, validation
from .auxiliary import STATISTICS, AuxOutput, AuxRequest
from .cache import memoize, signature
from .eager import reference
from .options import Lengths, Options
from .problem import Chosen, Problem


def attend(
    query: Tensor, key: Tensor, value: Tensor, options: Options, lengths: Lengths, return_aux: AuxRequest | None
) -> tuple[Tensor, AuxOutput | None]:
    """Return the output [B, H, N_q, D] of a call on floating tensors of one device, and the statistics it asks for.

    Calls of one signature are checked, and given to a backend, once.
    """
    query, key, value = _autocast(query, key, value)
    validation.check_switches(options)
    try:
        signed = _signature(query, key, value, options, lengths)
    except RuntimeError:  # nested and compressed sparse tensors have no sizes or strides to ask for
        validation.check_layouts(query, key, value, options, lengths.key_lengths)
        raise
    chosen = memoize(signed, lambda: _choose(query, key, value, options, lengths))
    validation.check_request(return_aux)
    problem = _complete(query, key, value, options, lengths)
    observer = observe.current()
    observed = None if observer is None else observer.request(query, key)
    output, seen, asked = _attend(problem, chosen, observed, return_aux)
    if observer is not None:
        observer.record(observe.Call(problem, output, seen))
    return output, asked


def _signature(query: Tensor, key: Tensor, value: Tensor, options: Options, lengths: Lengths) -> Hashable:
    """Return all that the checks and the choice of a backend depend on: neither a bias's value nor a tensor's.

    The type of the window is there because True equals 1 and is refused.
    """
    return (
        "decision", signature(query), signature(key), signature(value), _signed(options["bias"]),
        _signed(options["alibi_slopes"]),
        options["scale"], options["is_causal"], type(options["window"]), options["window"], options["enable_gqa"],
        options["backend"], options["form"], _signed(lengths.key_lengths), lengths.query_starts is None,
    )  # fmt: skip


def _signed(given: object) -> Hashable:
    return signature(given) if isinstance(given, Tensor) else (type(given),)


def _choose(query: Tensor, key: Tensor, value: Tensor, options: Options, lengths: Lengths) -> Chosen:
    """Check a call and choose its backend."""
    validation.check_layouts(query, key, value, options, lengths.key_lengths)
    validation.check_shapes(query, key, value, options["enable_gqa"])
    validation.check_key_lengths(lengths.key_lengths, query)
    validation.check_options(query, key, value, options)
    problem = Problem(
        query,
        key,
        value,
        None,
        0.0,
        options["alibi_slopes"],
        _scale(query, options),
        options["is_causal"],
        options["window"],
        *lengths,
    )
    choice.check(options["backend"], problem.traits)
    chosen = choice.choose(options["backend"], problem.traits)
    return choice.forward(problem) if chosen == "auto" and not torch.compiler.is_compiling() else chosen


def _autocast(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kind = query.device.type
    if query.dtype == torch.float64 or query.is_meta or not torch.is_autocast_enabled(kind):
        return query, key, value
    dtype = torch.get_autocast_dtype(kind)
    return query.to(dtype), key.to(dtype), value.to(dtype)


def _complete(query: Tensor, key: Tensor, value: Tensor, options: Options, lengths: Lengths) -> Problem:
    """Fill in every default."""
    bias = _bias(query, key, options, lengths)
    slopes = options["alibi_slopes"]
    return Problem(
        query,
        key,
        value,
        bias if isinstance(bias, Tensor) else None,
        0.0 if isinstance(bias, Tensor) else bias,
        None if slopes is None else slopes.detach().to(_working_type(query)).contiguous(),
        _scale(query, options),
        options["is_causal"],
        options["window"],
        *lengths,
        _is_deterministic(options),
        options["form"],
    )


def _scale(query: Tensor, options: Options) -> float:
    return 1.0 / math.sqrt(query.size(3)) if options["scale"] is None else options["scale"]


def _is_deterministic(options: Options) -> bool:
    given = options["deterministic"]
    return torch.are_deterministic_algorithms_enabled() if given is None else given


def _bias(query: Tensor, key: Tensor, options: Options, lengths: Lengths) -> Tensor | float:
    """Return the bias: the caller's, or −log of the most keys that a row of each sequence may see."""
    if isinstance(options["bias"], Tensor):
        return options["bias"].to(_working_type(query)).contiguous()
    if options["bias"] is not None:
        return options["bias"]
    most = lengths.max_k or key.size(2)
    if options["window"] is not None:
        most = min(most, options["window"] if options["is_causal"] else 2 * options["window"] - 1)
    keys = lengths.keys()
    return -math.log(most) if keys is None else -keys.clamp(1, most).to(_working_type(query)).log()[:, None]


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
    if sampling[0] == 0:
        rest = sums.new_zeros(*sums.shape, len(STATISTICS) - 1)
        rest[..., -1] = -torch.inf
    else:
        rest = reference.row_statistics(_detached(problem), *sampling)
    return torch.cat([sums[..., None], rest], dim=-1)


def _detached(problem: Problem) -> Problem:
    query, key, value = (tensor.detach() for tensor in problem[:3])
    return problem._replace(
        query=query, key=key, value=value, bias=None if problem.bias is None else problem.bias.detach()
    )
