"""Launch of the hopper backend's forward kernel: static tables, nothing is tuned at run time."""

from typing import NamedTuple

import torch
from torch import Tensor

from .. import device, sigmoid_forms
from ..auxiliary import Measure
from ..cache import layout, memoize
from ..launching import descriptors
from ..launching.launcher import Launcher
from ..problem import Problem
from .launch import OPTIONS, fit, lead, padded, programs, readable, tile
from .sigmoid import LOWEST_BIAS, forward_form
from .sizes import SLAB, WARPS


class ForwardConfig(NamedTuple):
    """Compile-time configuration of the forward kernel.

    consumers: warp groups that compute, 64 query rows each; 2 or 4.
    block_k: keys of a tile.
    stages: buffers of the ring of K, and of that of V, a power of two, at least 2.
    registers: of a consumer's thread, a multiple of 8. All warp groups begin with as many, a multiple of 8 with which
        they fit in 65536; the producer, itself a warp group, keeps 24 and leaves the rest to the consumers.
    overlapped: whether a tile's weights are computed while the product of those before them runs, which takes
        registers; and a tile is waited for where it is used, not while the one before it is worked on.
    """

    consumers: int
    block_k: int
    stages: int
    registers: int
    overlapped: bool

    @property
    def rows(self) -> int:
        """Query rows of one work item."""
        return SLAB * self.consumers


TABLE = {64: ForwardConfig(4, 64, 8, 112, False), 128: ForwardConfig(2, 128, 2, 240, True)}
"""Configurations by padded head dim, for both 16-bit types."""


class _Prepared(NamedTuple):
    """The launcher shared by all calls of one signature. sums: the shape of the partial sums of Σ out²."""

    sums: tuple[int, ...]
    launcher: Launcher


def forward(
    problem: Problem,
    output: Tensor,
    measure: Measure | None,
    form: int | None = None,
    config: ForwardConfig | None = None,
) -> Tensor:
    """Write ``output`` [B, H, N_q, D] and return what ``measure`` makes of Σ out², or an empty tensor without it.

    Tensors that TMA cannot read where they lie, unaligned or broadcast, are copied.
    form: a form to force; None decides by ``forward_form``. config: a configuration to measure, not the table's.
    """
    form, with_sums = forward_form(problem) if form is None else form, measure is not None
    key = "hopper forward", problem.layout, layout(output), with_sums, form, config
    prepared = memoize(key, lambda: _prepare(problem, with_sums, form, config) if fit(problem[:3]) else None)
    if prepared is None:
        return forward(descriptors.readable(problem, readable), output, measure, form, config)
    query, bias, finish = problem.query, problem.bias, None if measure is None else measure(problem)
    sums = torch.empty(prepared.sums, dtype=torch.float32, device=query.device)
    factor = sigmoid_forms.factor(form)
    prepared.launcher(
        (query, problem.key, problem.value, output, sums if bias is None else bias, sums),
        factor * problem.scale, factor * problem.bias_value, factor, LOWEST_BIAS[query.dtype],
    )  # fmt: skip
    return sums if finish is None else finish(sums)


def _prepare(problem: Problem, with_sums: bool, form: int, config: ForwardConfig | None) -> _Prepared:
    from .forward import forward_kernel

    query, key = problem.query, problem.key
    batch, heads, n_q, dim = query.shape
    d_pad = padded(dim)
    config = TABLE[d_pad] if config is None else config
    query_tiles = -(-n_q // config.rows)
    grid = programs(batch * heads * query_tiles, device.processors(query.device))
    rows = (SLAB, config.block_k, config.block_k, SLAB)
    numbers = (heads, heads // key.size(1), n_q, key.size(2), batch * heads, query_tiles, lead(problem))
    constants = {
        "BLOCK_K": config.block_k, "CONSUMERS": config.consumers, "STAGES": config.stages,
        "REGISTERS": config.registers, "CAUSAL": problem.is_causal, "HAS_BIAS": problem.bias is not None,
        "SUMS": with_sums, "FORM": form, "OVERLAPPED": config.overlapped, **OPTIONS,
    }  # fmt: skip
    launcher = Launcher(forward_kernel, (grid,), [*(tile(x, d_pad) for x in rows), None, None], numbers, constants)
    return _Prepared((batch, heads, query_tiles * config.consumers * WARPS) if with_sums else (0,), launcher)
