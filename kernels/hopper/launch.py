"""Which calls the hopper backend takes, and how its kernel is launched: static tables, nothing is tuned at run time."""

import logging
import math
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import descriptors, releases
from .. import launch as backends
from ..auxiliary import Measure
from ..cache import layout, memoize
from ..launch import Refusal
from ..launcher import Describe, Launcher
from ..problem import Problem, Traits

IN_AUTO = True
"""Whether ``auto`` chooses this backend."""
CAPABILITY = (9, 0)
DTYPES = (torch.float16, torch.bfloat16)
RELEASES = releases.SUPPORTED
"""The oldest and the newest Triton release that the kernels compile under."""
RELEASE = releases.INSTALLED
SMALLEST_SCALE = 1e-30
"""Below it a mask cannot be told from a product."""

SLAB = 64
"""Rows of one consumer; the same number as in schedule.py."""
WARPS = 4
"""Of one consumer; the same number as in schedule.py."""
MIXED, TANH, BY_HEAD = 0, 1, 3
"""How sigmoid is computed; the same numbers as in weights.py."""
TANH_BIAS = {torch.bfloat16: -9.71, torch.float16: -7.0}
"""The lowest bias at which the tanh form is used: there its error is 1.4 times the rounding floor (n = 16384, 1096)."""


class Launch(NamedTuple):
    """What a kernel is compiled for.

    consumers: warp groups that compute, 64 query rows each; 2 or 4.
    block_k: keys of a tile.
    stages: tiles of K, and of V, in flight, a power of two, at least 2.
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
        """Query rows of one program's turn."""
        return SLAB * self.consumers


OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}
"""What every launch asks of the compiler; the first consumer runs in the kernel's own four warps."""
TABLE = {64: Launch(4, 64, 8, 112, False), 128: Launch(2, 128, 2, 240, True)}
"""Launches by padded head dim, for both 16-bit types."""


def refusal(traits: Traits) -> Refusal | None:
    """Return why the backend cannot take such a call, or None when it can; strides do not matter."""
    device, dtype, head_dim, alibi, scale = traits[:5]
    if device.type != "cuda":
        return Refusal(f"no CUDA device for backend='hopper', tensors are on {device}", True)
    major, minor = backends.capability(device)
    if (major, minor) != CAPABILITY:
        return Refusal(f"backend='hopper' needs CUDA capability 9.0, {device} has {major}.{minor}", True)
    if not _knows_release():
        return Refusal(_release_text(), True)
    if dtype not in DTYPES:
        return Refusal(f"backend='hopper' takes float16 and bfloat16, got {dtype}", False)
    if head_dim % 8 or not 40 <= head_dim <= 128:
        return Refusal(f"backend='hopper' takes head dims 40 to 128 in multiples of 8, got {head_dim}", False)
    if alibi:
        return Refusal("backend='hopper' does not take alibi_slopes", False)
    for name in ("window", "key_lengths"):
        if getattr(traits, name):
            return Refusal(f"backend='hopper' does not take {name}", False)
    if traits.packed:
        return Refusal("backend='hopper' does not take packed sequences", False)
    if abs(scale) < SMALLEST_SCALE:
        return Refusal(f"backend='hopper' needs a scale of at least {SMALLEST_SCALE} either way, got {scale}", False)
    return None


def preferred(traits: Traits) -> bool:
    """Say whether ``auto`` gives such a call to this backend."""
    device = traits.device
    if not IN_AUTO or device.type != "cuda" or backends.capability(device) != CAPABILITY:
        return False
    if not torch.compiler.is_compiling():
        _report_release()
    return refusal(traits) is None


def _knows_release() -> bool:
    return RELEASE is not None and RELEASES[0] <= RELEASE <= RELEASES[1]


def _release_text() -> str:
    found, oldest, newest = (releases.name(release) for release in (RELEASE, *RELEASES))
    return f"backend='hopper' knows triton {oldest} to {newest}, found {found}"


@cache
def _report_release() -> None:
    """Say once in the log when the Triton release is why the backend stands aside."""
    if not _knows_release():
        logging.getLogger(__name__).warning("%s; backend='auto' uses 'triton'", _release_text())


def padded(head_dim: int) -> int:
    """Return the columns of a tile that hold ``head_dim``."""
    return 64 if head_dim <= 64 else 128


def sigmoid_form(problem: Problem) -> int:
    """Return how sigmoid is computed, from type and bias alone: TANH only for a bias that is large enough.

    A bias in a tensor is read by the kernel, which then decides for each head: BY_HEAD.
    """
    if problem.form != "auto":
        return TANH if problem.form == "tanh" else MIXED
    if problem.bias is not None:
        return BY_HEAD
    return TANH if problem.bias_value >= TANH_BIAS[problem.query.dtype] else MIXED


def lead(problem: Problem) -> int:
    """Return by how many keys the first key tile begins before the first key.

    Causal key tiles lie so that a slab of 64 rows meets the diagonal within one of them. Queries cannot be shifted
    instead: a TMA load may begin before its tensor, a TMA store may not.
    """
    return (problem.query.size(2) - problem.key.size(2)) % 64 if problem.is_causal else 0


def programs(pairs: int, query_tiles: int, processors: int) -> int:
    """Return the grid: no more programs than multiprocessors, each with work in the first deal."""
    return min(pairs * query_tiles, processors)


class _Ready(NamedTuple):
    """What is the same for all calls that look alike. sums: the shape of the parts of Σ out²."""

    sums: tuple[int, ...]
    launcher: Launcher


def forward(
    problem: Problem, output: Tensor, measure: Measure | None, form: int | None = None, plan: Launch | None = None
) -> Tensor:
    """Write ``output`` [B, H, N_q, D] and return what ``measure`` makes of Σ out², or an empty tensor without it.

    Tensors that TMA cannot read where they lie, unaligned or broadcast, are copied.
    form: a form to force; None decides by ``sigmoid_form``. plan: a launch to measure, not the table's.
    """
    form, with_sums = sigmoid_form(problem) if form is None else form, measure is not None
    key = "hopper forward", problem.layout, layout(output), with_sums, form, plan
    ready = memoize(
        key, lambda: _ready(problem, with_sums, form, plan) if descriptors.fit(CAPABILITY, problem[:3]) else None
    )
    if ready is None:
        return forward(descriptors.readable(problem, readable), output, measure, form, plan)
    query, bias, finish = problem.query, problem.bias, None if measure is None else measure(problem)
    sums = torch.empty(ready.sums, dtype=torch.float32, device=query.device)
    factor = 0.5 if form == TANH else -math.log2(math.e)
    ready.launcher(
        (query, problem.key, problem.value, output, sums if bias is None else bias, sums),
        factor * problem.scale, factor * problem.bias_value, factor, TANH_BIAS[query.dtype],
    )  # fmt: skip
    return sums if finish is None else finish(sums)


def _ready(problem: Problem, with_sums: bool, form: int, plan: Launch | None) -> _Ready:
    from .forward import forward_kernel

    query, key = problem.query, problem.key
    batch, heads, n_q, dim = query.shape
    d_pad = padded(dim)
    plan = TABLE[d_pad] if plan is None else plan
    query_tiles = -(-n_q // plan.rows)
    grid = programs(batch * heads, query_tiles, processors(query.device))
    rows = (SLAB, plan.block_k, plan.block_k, SLAB)
    numbers = (heads, heads // key.size(1), n_q, key.size(2), batch * heads, query_tiles, lead(problem))
    constants = {
        "BLOCK_K": plan.block_k, "CONSUMERS": plan.consumers, "STAGES": plan.stages, "REGISTERS": plan.registers,
        "CAUSAL": problem.is_causal, "HAS_BIAS": problem.bias is not None, "SUMS": with_sums, "FORM": form,
        "OVERLAPPED": plan.overlapped, **OPTIONS,
    }  # fmt: skip
    launcher = Launcher(forward_kernel, (grid,), [*(tile(x, d_pad) for x in rows), None, None], numbers, constants)
    return _Ready((batch, heads, query_tiles * plan.consumers * WARPS) if with_sums else (0,), launcher)


def backward(problem: Problem, grad: Tensor, grads: tuple[Tensor, Tensor, Tensor], bias_gradient: bool) -> Tensor:
    """Write ``grads`` of query, key and value and return the bias's [H] float32 or an empty tensor, as triton does."""
    from .backward_launch import backward

    return backward(problem, grad, grads, bias_gradient)


def readable(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy of it where TMA cannot read it: unaligned or broadcast."""
    return tensor if descriptors.fit(CAPABILITY, (tensor,)) else tensor.clone(memory_format=torch.contiguous_format)


def tile(rows: int, columns: int) -> Describe:
    """Return how the descriptor of a tensor in tiles [rows, columns] is built."""
    return lambda tensor: descriptor(tensor, rows, columns)


def descriptor(tensor: Tensor, rows: int, columns: int) -> Any:
    """Return the TMA descriptor of a tensor [B, H, N, D] in tiles [rows, columns]."""
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    block = [1, 1, rows, columns]
    return TensorDescriptor(
        tensor, list(tensor.shape), descriptors.steps(tensor), block, _layout(rows, columns, tensor.dtype)
    )


@cache
def _layout(rows: int, columns: int, dtype: torch.dtype) -> Any:
    from triton.experimental.gluon import language as gl

    kind = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16, torch.float32: gl.float32}[dtype]
    return gl.NVMMASharedLayout.get_default_for([1, 1, rows, columns], kind)


@cache
def processors(device: torch.device) -> int:
    """Return how many multiprocessors a CUDA device has."""
    return torch.cuda.get_device_properties(device).multi_processor_count
