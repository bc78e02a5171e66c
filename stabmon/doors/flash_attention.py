"""The door of the flash-attn package, by its documented signatures: padded, packed, and with tensors joined in one."""

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stabmon.doors.form import scale_of, shown
from stabmon.kernels import observe
from stabmon.kernels.eager.reference import logits
from stabmon.kernels.problem import Problem
from stabmon.kernels.visibility import visible_keys

NAME = "flash_attn"
_HOMES = ("flash_attn", "flash_attn.flash_attn_interface", "flash_attn_interface")
_NAMES = tuple(
    f"flash_attn_{packed}{joined}func" for packed in ("", "varlen_") for joined in ("", "kvpacked_", "qkvpacked_")
)


class _Lengths(NamedTuple):
    """First token of each packed sequence, int [B + 1] or None for padded ones, and the longest of them."""

    starts: Tensor | None
    longest: int


def functions() -> Iterable[Callable[..., Any]]:
    """Return the functions that are wrapped: none where the package is not loaded."""
    found = (getattr(sys.modules.get(home), name, None) for home in _HOMES for name in _NAMES)
    return list({id(function): function for function in found if callable(function)}.values())


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` with its calls shown to the observer."""
    return shown(function, partial(_call, tuple(inspect.signature(function).parameters)))


def _call(parameters: Sequence[str], output: Tensor, *args: Any, **kwargs: Any) -> observe.Call:
    """Return the call in the kernels' form; packed sequences are padded to the longest.

    Raises:
        ValueError: keys are read through a table of pages.
    """
    given = {**dict(zip(parameters, args, strict=False)), **kwargs}
    if given.get("block_table") is not None:
        raise ValueError("flash_attn with a block_table reads keys that stabmon does not")
    of_queries, of_keys = _lengths(given)
    q, k, v = _tensors(given)
    query, out = _padded(q, of_queries), _padded(output, of_queries)
    key, value = _padded(k, of_keys), _padded(v, of_keys)
    left, right = given.get("window_size") or (-1, -1)
    causal = bool(given.get("causal"))
    far = query.size(2) + key.size(2)  # more than any distance
    unbounded = left < 0 and (causal or right < 0)
    problem = Problem(
        query,
        key,
        value,
        alibi_slopes=given.get("alibi_slopes"),
        scale=scale_of(query, given.get("softmax_scale")),
        is_causal=causal,
        window=None if unbounded else left + 1 if left >= 0 else far,
        ahead=None if unbounded or causal else right + 1 if right >= 0 else far,
    )
    read = partial(_row_logits, problem, of_queries.starts, of_keys.starts, float(given.get("softcap") or 0.0))
    return observe.Call(problem, out, kind="softmax", door=NAME, returned=output, row_logits=read)


def _tensors(given: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return q [..., H, D], and k and v [..., H_k, D], also of those that are joined."""
    if "qkv" in given:
        q, k, v = given["qkv"].unbind(-3)
    elif "kv" in given:
        q, (k, v) = given["q"], given["kv"].unbind(-3)
    else:
        q, k, v = given["q"], given["k"], given["v"]
    return q, k, v


def _lengths(given: dict[str, Any]) -> tuple[_Lengths, _Lengths]:
    """Return the lengths of queries and of keys."""
    queries, keys = (
        _Lengths(given.get(f"cu_seqlens{side}", given.get("cu_seqlens")), given.get(f"max_seqlen{side}", 0))
        for side in ("_q", "_k")
    )
    both = given.get("max_seqlen", 0)
    return queries._replace(longest=queries.longest or both), keys._replace(longest=keys.longest or both)


def _padded(x: Tensor, lengths: _Lengths) -> Tensor:
    """Return ``x`` [B, N, H, D], or packed [T, H, D], as [B, H, N, D], 0 behind the end of each sequence."""
    if lengths.starts is None:
        return x.transpose(1, 2)
    index = lengths.starts[:-1, None] + torch.arange(lengths.longest, device=x.device)
    inside = index < lengths.starts[1:, None]
    rows = x[index.clamp(max=x.size(0) - 1).long()]
    return rows.masked_fill(~inside[..., None, None], 0).transpose(1, 2)


def _row_logits(
    problem: Problem, query_starts: Tensor | None, key_starts: Tensor | None, softcap: float, rows: Tensor, read: slice
) -> Tensor:
    """Return z [B, H, R, N_k] of query ``rows`` [R] of the sequences ``read``, -inf where a key is not valid."""
    part = problem.sequences(read)
    query, key = part.query.detach().index_select(2, rows), part.key.detach()
    positions, stop = rows + (key.size(2) - problem.query.size(2)), None
    if query_starts is not None and key_starts is not None:
        queries, keys = (starts.diff()[read, None] for starts in (query_starts, key_starts))
        positions, stop = rows + keys - queries, torch.where(rows < queries, keys, 0)
    z = logits(query, key, problem.scale, None)
    z = softcap * torch.tanh(z / softcap) if softcap else z
    if part.alibi_slopes is not None:
        z = z + logits(query * 0, key, 1.0, part.alibi_slopes, positions)
    seen = visible_keys(positions, key.size(2), problem.is_causal, problem.window, None, stop, problem.ahead)
    if seen is None:
        return z
    return z.masked_fill(~(seen[:, None] if seen.dim() == 3 else seen), -torch.inf)
