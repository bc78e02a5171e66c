# mypy: disable-error-code="no-untyped-call"
"""Launch of the statistics kernels: after a forward, which they need not wait for, or alone.

After a forward of capability 9.0 or newer they are launched so that they may begin while it runs (programmatic
dependent launch): it says at its start that they may, and they wait for its end before they read what it writes. All
else that they read was complete before the forward began, as that is launched as usual. Alone they are launched as
usual: it is unknown when the kernel before them, which may compute their queries, lets others begin.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from .. import device, visibility
from ..auxiliary import DEAD, OFFSET_STEPS
from ..cache import memoize
from ..launching import completion_counters, descriptors
from ..launching.launcher import Launcher
from ..problem import Problem
from . import launch
from .statistics import statistics_kernel, sums_kernel

WIDE = 2**15
"""Rows or sequences from which on the arithmetic of strata needs 64 bits."""


class _Prepared(NamedTuple):
    """The launcher shared by all calls of one signature. partial: the shape of the partial sums."""

    partial: tuple[int, ...]
    launcher: Launcher


def row_statistics(problem: Problem, sums: Tensor, rows: int, offset: float, sequences: int) -> Tensor:
    """Return ``STATISTICS`` [B, H, 9] float32 of ``rows`` query rows of each of ``sequences`` sampled sequences.

    sums: Σ out² [B, H], the first column, contiguous. Queries and keys whose rows are not aligned are copied.
    """
    query, key = map(descriptors.aligned, problem[:2])
    return begin(problem._replace(query=query, key=key), rows, offset, sequences, False)(sums)


def begin(problem: Problem, rows: int, offset: float, sequences: int, early: bool) -> Callable[[Tensor], Tensor]:
    """Take the memory that statistics need, and return a function that launches their kernel on partial sums of Σ out².

    problem: queries and keys with aligned rows. rows: 0 for the outputs' sums alone. early: the caller launches the
    forward of ``problem``, and nothing else, between this call and that of what it returns. So the kernel may begin
    while the forward runs, and writes to memory that was taken before: memory taken later may be what the forward's
    caller has given up, copies for instance, and the forward still reads.
    """
    query = problem.query
    batch, heads, early = problem.batch, query.size(1), early and device.overlaps(query.device)
    measured = torch.empty((batch, heads, 9), dtype=torch.float32, device=query.device)
    if rows == 0:
        add = memoize(("output sums", batch, heads, query.device, early), lambda: _adder(batch * heads, early))

        def total(sums: Tensor) -> Tensor:
            add((sums, measured), _parts(sums))
            return measured

        return total
    prepared = memoize(
        ("statistics", problem.layout, rows, sequences, early), lambda: _prepare(problem, rows, sequences, early)
    )
    partial = torch.empty(prepared.partial, dtype=torch.float32, device=query.device)
    arrived = completion_counters.counters(query.device, prepared.partial[0], "statistics")
    valid = None if problem.attn_mask is None else visibility.keys_of_sampled_rows(problem, rows, offset)

    def measure(sums: Tensor) -> Tensor:
        prepared.launcher(
            (query, problem.key, *descriptors.per_sequence(problem), valid, sums, partial, arrived, measured),
            int(offset * OFFSET_STEPS), float(problem.scale), float(problem.bias_value), DEAD, _parts(sums),
        )  # fmt: skip
        return measured

    return measure


def _parts(sums: Tensor) -> int:
    return sums.size(2) if sums.dim() == 3 else 1


def _adder(rows: int, early: bool) -> Launcher:
    return Launcher(sums_kernel, (rows,), [None] * 2, (), {"num_warps": 1, **_timing(early)})


def _timing(early: bool) -> dict[str, bool]:
    return {"EARLY": True, "launch_pdl": True} if early else {"EARLY": False}


def _prepare(problem: Problem, rows: int, sequences: int, early: bool) -> _Prepared:
    query, key = problem.query, problem.key
    batch, heads = problem.batch, query.size(1)
    count, sequences = min(rows, problem.n_q), min(sequences, batch)
    config = launch.statistics_config(problem, count)
    split_keys = launch.split_keys(config)
    row_tiles, splits = max(1, triton.cdiv(count, config.block_q)), max(1, triton.cdiv(problem.n_k, split_keys))
    numbers = (
        *query.stride()[:3], *key.stride()[:3], *descriptors.bias_strides(problem),
        *descriptors.mask_strides(problem), heads, heads // key.size(1), problem.n_q, problem.n_k, problem.reach,
        problem.reach_ahead, batch, sequences, count, splits,
    )  # fmt: skip
    constants = {
        "D": query.size(3), "D_PAD": config.d_pad, "BLOCK_Q": config.block_q, "BLOCK_K": config.block_k,
        "SPLIT": split_keys, "STEPS": OFFSET_STEPS, "FORM": config.form, "RULES": launch.rules(problem),
        "HAS_BIAS": problem.bias is not None,
        "ALIBI": 0 if problem.alibi_slopes is None else problem.alibi_slopes.dim(),
        "WIDE": max(count, sequences) >= WIDE, **config.options, **_timing(early),
    }  # fmt: skip
    grid = (sequences * heads, row_tiles, splits)
    return _Prepared(
        (sequences * heads, row_tiles * splits, 8),
        Launcher(statistics_kernel, grid, [None] * 13, numbers, constants),
    )
