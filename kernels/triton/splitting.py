"""The cost model of the forward kernels: whether keys are split over programs, and into how many parts.

A kernel takes its latency and, for each wave of programs on a device, the keys of the longest program times the cost of
a key; a split adds writing and summing the partial outputs. No kernel is faster than reading keys and values once. The
constants, in microseconds, are fitted to times in CUDA graphs on an H200 (bf16, 4 to 128 heads, 32 to 8192 queries, 256
to 16384 keys, 224 shapes and masks). There what the model chooses takes 1.4 % longer than the best in the mean, and in
three shapes up to 4 % longer than the hopper forward.
"""

from typing import NamedTuple

import torch

from .. import device
from ..problem import Problem
from . import tables

FEW_ROWS = 32
"""Packed rows up to which the other kernels mostly compute padding, so that the split forward is always taken."""
BYTES = 4.3e6
"""Bytes of device memory that are read in a microsecond."""
MARGIN = 0.91
"""Share of another kernel's estimate under which the split forward is chosen, for what the model does not see."""


SPLIT_LOSS = 1.03
"""Factor on the estimates of two and more splits, so that equal ones leave the keys whole."""
CUTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of splits that are considered."""
ALIGNED = 128
"""Keys by which the first tile of keys of a window may begin early."""


class Cost(NamedTuple):
    """Constants of one kernel by tiles of ``rows`` query rows.

    start: latency of a launch. key: a key of a program that has a multiprocessor to itself; shared: where all its
    places are taken, of which there are ``resident``. part: writing a partial output; add: summing one of them.
    tail: share of the longest program's time that uneven programs leave a device half empty at the end.
    """

    rows: int
    resident: int
    start: float
    key: float
    shared: float
    part: float = 0.0
    add: float = 0.0
    tail: float = 0.0


SPLIT = {
    64: Cost(64, 2, 2.2, 0.0079, 0.0124, 2.6, 0.44, 0.37),
    128: Cost(64, 2, 2.1, 0.0117, 0.0165, 3.3, 0.88, 0.35),
}
"""The split forward in tiles of 64 packed rows, by padded head dim."""
HOPPER = {64: Cost(256, 1, 6.2, 0.0128, 0.0128), 128: Cost(128, 1, 5.7, 0.0103, 0.0103)}
TRITON = {64: Cost(128, 2, 3.9, 0.0118, 0.0151, tail=0.5), 128: Cost(64, 2, 4.0, 0.0091, 0.0135, tail=0.5)}
"""The triton forward, whose programs read all keys of a tile."""


class Shape(NamedTuple):
    """The numbers of a call that its time depends on."""

    batch: int
    heads: int
    key_heads: int
    n_q: int
    n_k: int
    dim: int
    is_causal: bool
    window: int = 0
    ahead: int = 0

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.heads // self.key_heads


class Cut(NamedTuple):
    """A forward's grid: tiles of packed rows, splits of each tile's keys, and keys of a split."""

    tiles: int
    splits: int
    chunk: int


def shape_of(problem: Problem) -> Shape:
    """Return the shape of a dense call."""
    batch, heads, n_q, dim = problem.query.shape
    return Shape(
        batch, heads, problem.key.size(1), n_q, problem.n_k, tables.padded(dim), problem.is_causal, problem.reach,
        problem.reach_ahead,
    )  # fmt: skip


def is_chosen(problem: Problem, other: dict[int, Cost]) -> bool:
    """Return whether the split forward is expected to be quicker than the kernel with the costs ``other``.

    Where nothing was measured (float32, head dims above 128, devices without an H100's launch tables) it is chosen for
    few rows, and for grids of the other kernel that fill less than half of the device.
    """
    if problem.query_starts is not None or min(problem.query.shape) == 0 or problem.n_k == 0:
        return False
    shape, processors = shape_of(problem), device.processors(problem.query.device)
    if shape.group * shape.n_q <= FEW_ROWS:
        return True
    found = device.capability(problem.query.device)
    if problem.query.dtype == torch.float32 or shape.dim > max(SPLIT) or tables.family(found) != "sm90":
        return 2 * shape.batch * shape.heads * -(-shape.n_q // 128) <= processors
    dim = max(min(SPLIT), shape.dim)
    return _best(shape, SPLIT[dim], processors)[0] < MARGIN * _time(shape, other[dim], processors, 1, 1)


def cut(problem: Problem, block_q: int, block_k: int, splits: int | None = None) -> Cut:
    """Return how the split forward cuts ``problem`` into programs; ``splits``: to be measured, None for the best."""
    shape, processors = shape_of(problem), device.processors(problem.query.device)
    tiles = -(-shape.group * shape.n_q // block_q)
    seen = max(_keys_of_tiles(shape, block_q, shape.group))
    if splits is None and block_q == SPLIT[64].rows and shape.dim <= max(SPLIT):
        splits = _best(shape, SPLIT[max(min(SPLIT), shape.dim)], processors)[1]
    elif splits is None:  # bound by reading keys: one program on each multiprocessor, of several tiles of keys
        splits = min(processors // (shape.batch * shape.key_heads * tiles), seen // (2 * block_k))
    chunk = -(-seen // max(1, splits))
    chunk = -(-chunk // block_k) * block_k
    return Cut(tiles, max(1, -(-seen // chunk)), chunk)


def _best(shape: Shape, cost: Cost, processors: int) -> tuple[float, int]:
    """Return the least time of the split forward, and the number of splits that takes it."""
    most = max(1, shape.n_k // 256)
    times = {splits: _time(shape, cost, processors, shape.group, splits) for splits in CUTS if splits <= most}
    splits = min(times, key=lambda splits: times[splits] * (1 if splits == 1 else SPLIT_LOSS))
    return times[splits], splits


def _time(shape: Shape, cost: Cost, processors: int, group: int, splits: int) -> float:
    """Return the expected microseconds of a kernel that packs the rows of ``group`` heads into its tiles."""
    keys = _keys_of_tiles(shape, cost.rows, group)
    pairs, slots = shape.batch * shape.heads // group, cost.resident * processors
    chunk = -(-max(keys) // splits)
    programs = pairs * sum(max(1, -(-seen // chunk)) for seen in keys)
    part, add = (cost.part, cost.add * splits) if splits > 1 else (0.0, 0.0)
    if programs <= processors:
        busy = chunk * cost.key + part
    elif shape.is_causal:
        work = (pairs * sum(keys) * cost.shared + programs * part) / slots
        busy = max(chunk * cost.key + part, work + cost.tail * chunk * cost.shared)
    else:
        busy = -(-programs // slots) * (chunk * cost.shared + part)
    reading = 4 * shape.batch * shape.key_heads * min(shape.n_k, pairs * max(keys)) * shape.dim / BYTES
    return cost.start + max(busy, reading) + add


def _keys_of_tiles(shape: Shape, rows: int, group: int) -> list[int]:
    """Return how many keys each tile of ``rows`` packed rows visits."""
    seen = []
    for tile in range(-(-group * shape.n_q // rows)):
        last = min(shape.n_q, ((tile + 1) * rows - 1) // group + 1)
        keys = last + shape.n_k - shape.n_q if shape.is_causal else shape.n_k
        if shape.window:
            reach = shape.window if shape.is_causal else shape.window + shape.ahead
            keys = min(keys, reach + rows // group + 1 + ALIGNED)
        seen.append(max(1, keys))
    return seen
