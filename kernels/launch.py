"""Which backend answers a call, and how its kernels are launched: static tables, nothing is tuned at run time."""

import math
import os
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from . import descriptors, releases
from .problem import Problem, Traits

Backend = Literal["auto", "eager", "triton", "hopper"]
Chosen = Literal["eager", "triton", "hopper"]
Kernel = Literal["forward", "query", "key", "statistics", "few"]

STATISTICS = ("statistics", "few")
TRITON_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
OLDEST = (8, 0)
OVERLAPPING = (9, 0)
"""The first capability whose kernels may let the next one of their stream begin while they run."""

PLAIN, EX2, TANH = 0, 1, 2
"""How sigmoid is computed; the same numbers as in tiles.py."""
CAUSAL, WINDOW, LENGTHS, PACKED = 1, 2, 4, 8
"""Which keys a query sees; the same numbers as in visible.py."""
TANH_BIAS = {torch.bfloat16: -9.2, torch.float16: -7.0}
"""The lowest bias at which the tanh form is used; README.md holds the measurement."""
WEIGHT_GAIN = {torch.float16: 2.0**15}
"""Weights are stored times this, so that those below 6e-5 are not subnormal in float16; the accumulator undoes it."""
GRADIENT_GAIN = {torch.float16: 4.0}
"""The same for dS, as far as P (1 - P) <= 1/4 lets it: it overflows only where dP itself would."""
CACHE = 24 * 2**20
"""Bytes of keys and values that concurrent programs may share: half of an H100's second-level cache."""


class Tiles(NamedTuple):
    """Tile sizes and the resources that a kernel is compiled for."""

    block_q: int
    block_k: int
    warps: int
    stages: int


class Plan(NamedTuple):
    """One launch: everything that depends on the device, head dim and type, and not on the lengths."""

    block_q: int
    block_k: int
    d_pad: int
    form: int
    gain: float
    gradient_gain: float
    tma: bool
    options: dict[str, Any]

    def constants(self, problem: Problem) -> tuple[float, float, float]:
        """Return factor·scale, factor·bias and factor: the logit as the sigmoid's form takes it."""
        factor = 0.5 if self.form == TANH else -math.log2(math.e)
        return factor * problem.scale, factor * problem.bias_value, factor

    def switches(self, problem: Problem) -> dict[str, Any]:
        """Return what every attention kernel is compiled for, by the names of its parameters."""
        return {
            "D": problem.query.size(3),
            "D_PAD": self.d_pad,
            "BLOCK_Q": self.block_q,
            "BLOCK_K": self.block_k,
            "RULES": rules(problem),
            "HAS_BIAS": problem.bias is not None,
            "ALIBI": problem.alibi_slopes is not None,
            "FORM": self.form,
            "GAIN": self.gain,
            "TMA": self.tma,
            **self.options,
        }


_HALF: dict[tuple[Kernel, str], dict[int, Tiles]] = {
    ("forward", "sm90"): {64: Tiles(128, 64, 4, 3), 128: Tiles(64, 64, 4, 3), 256: Tiles(128, 64, 8, 2)},
    ("query", "sm90"): {64: Tiles(64, 64, 4, 3), 128: Tiles(64, 64, 4, 2), 256: Tiles(64, 32, 4, 2)},
    ("key", "sm90"): {64: Tiles(64, 64, 4, 3), 128: Tiles(64, 64, 4, 2), 256: Tiles(32, 64, 8, 2)},
    ("statistics", "sm90"): {128: Tiles(64, 64, 4, 2), 256: Tiles(32, 32, 4, 3)},
    ("few", "sm90"): {64: Tiles(16, 64, 1, 1), 128: Tiles(16, 128, 4, 1), 256: Tiles(16, 64, 4, 1)},
    ("forward", "sm80"): {64: Tiles(64, 64, 4, 3), 128: Tiles(128, 32, 8, 3), 256: Tiles(64, 32, 8, 2)},
    ("query", "sm80"): {64: Tiles(64, 32, 4, 3), 128: Tiles(64, 64, 8, 2), 256: Tiles(32, 32, 4, 2)},
    ("key", "sm80"): {64: Tiles(32, 64, 4, 3), 128: Tiles(32, 64, 4, 2), 256: Tiles(32, 32, 8, 2)},
    ("statistics", "sm80"): {128: Tiles(64, 64, 4, 2), 256: Tiles(32, 32, 4, 2)},
    ("few", "sm80"): {64: Tiles(16, 64, 1, 1), 128: Tiles(16, 128, 4, 1), 256: Tiles(16, 64, 4, 1)},
    ("forward", "small"): {64: Tiles(64, 32, 4, 2), 128: Tiles(64, 32, 4, 2), 256: Tiles(32, 32, 4, 1)},
    ("query", "small"): {64: Tiles(64, 32, 4, 2), 128: Tiles(32, 32, 4, 2), 256: Tiles(16, 16, 4, 1)},
    ("key", "small"): {64: Tiles(32, 64, 4, 2), 128: Tiles(32, 32, 4, 2), 256: Tiles(16, 16, 4, 1)},
    ("statistics", "small"): {128: Tiles(64, 32, 4, 2), 256: Tiles(32, 32, 4, 1)},
    ("few", "small"): {64: Tiles(16, 64, 1, 1), 128: Tiles(16, 64, 4, 1), 256: Tiles(16, 32, 4, 1)},
}
"""Launch tables of the 16-bit types by kernel and device family; a head dim takes the first entry that holds it.

"few" is the statistics kernel for 16 rows or less: one tile of keys, so that no load waits for another.
"""

_FULL: dict[Kernel, dict[int, Tiles]] = {
    "forward": {64: Tiles(32, 32, 4, 2), 128: Tiles(16, 32, 4, 1), 256: Tiles(16, 16, 4, 1)},
    "query": {64: Tiles(32, 32, 4, 2), 128: Tiles(16, 32, 4, 1), 256: Tiles(16, 16, 4, 1)},
    "key": {64: Tiles(16, 32, 4, 2), 128: Tiles(16, 16, 4, 1), 256: Tiles(16, 16, 4, 1)},
    "statistics": {128: Tiles(32, 32, 4, 1), 256: Tiles(16, 32, 4, 1)},
    "few": {128: Tiles(16, 32, 4, 1), 256: Tiles(16, 32, 4, 1)},
}
"""Launch tables of float32, which runs on the FMA pipe everywhere."""


class Refusal(NamedTuple):
    """Why a backend cannot answer; ``of_machine`` tells the machine's limits from the caller's arguments."""

    text: str
    of_machine: bool


def interpreted() -> bool:
    """Say whether Triton kernels run in its interpreter, on CPU tensors (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def refusal(traits: Traits) -> Refusal | None:
    """Return why the triton backend cannot take such a call, or None when it can."""
    device, dtype, head_dim = traits[:3]
    if releases.INSTALLED is None:
        return Refusal("triton is not installed, backend='triton' needs it", True)
    if releases.is_older(releases.INSTALLED):
        oldest, found = releases.name(releases.SUPPORTED[0]), releases.name(releases.INSTALLED)
        return Refusal(f"backend='triton' needs triton {oldest} or newer, found {found}", True)
    if dtype not in TRITON_DTYPES:
        return Refusal(f"backend='triton' takes float16, bfloat16 and float32, got {dtype}", False)
    if head_dim % 8 or not 16 <= head_dim <= 256:
        return Refusal(f"backend='triton' takes head dims 16 to 256 in multiples of 8, got {head_dim}", False)
    if device.type != "cuda" and interpreted():
        return Refusal("Triton's interpreter cannot multiply bfloat16", True) if dtype == torch.bfloat16 else None
    if device.type != "cuda":
        return Refusal(f"no CUDA device for backend='triton', tensors are on {device}", True)
    major, minor = capability(device)
    if (major, minor) < OLDEST:
        return Refusal(f"backend='triton' needs CUDA capability 8.0 or newer, {device} has {major}.{minor}", True)
    return None


def choose(backend: Backend, traits: Traits) -> Chosen:
    """Return the backend for ``auto``: the fastest that takes the call on a CUDA device, eager everywhere else."""
    if backend != "auto":
        return backend
    if traits.device.type != "cuda":
        return "eager"
    from .hopper import launch as hopper

    if hopper.preferred(traits):
        return "hopper"
    return "eager" if refusal(traits) else "triton"


def capability(device: torch.device) -> tuple[int, int]:
    """Return the device's CUDA capability; the interpreter counts as 8.0.

    Read from the device's properties, which torch.compile knows to be constant; get_device_capability it does not know.
    """
    if device.type != "cuda":
        return OLDEST
    properties = torch.cuda.get_device_properties(device)
    return properties.major, properties.minor


def family(found: tuple[int, int]) -> str:
    """Return which launch table serves a capability; "small" has about 100 KB of shared memory a program."""
    if found in ((9, 0), (10, 0), (10, 3), (11, 0)):
        return "sm90"
    return "sm80" if found in ((8, 0), (8, 7)) else "small"


def padded(head_dim: int) -> int:
    """Return the power of two, at least 16, that holds ``head_dim``."""
    return max(16, 1 << (head_dim - 1).bit_length())


def tiles(kernel: Kernel, found: tuple[int, int], dtype: torch.dtype, d_pad: int, tma: bool) -> Tiles:
    """Return the pinned launch of ``kernel``; without TMA, addresses take registers and large tiles would spill."""
    served = "sm80" if family(found) == "sm90" and kernel not in STATISTICS and not tma else family(found)
    table = _FULL[kernel] if dtype == torch.float32 else _HALF[kernel, served]
    return next(entry for most, entry in table.items() if d_pad <= most)


def on_device(device: torch.device) -> bool:
    """Say whether kernels are compiled for ``device``, not interpreted."""
    return device.type == "cuda"


def overlaps(device: torch.device) -> bool:
    """Say whether a kernel may let the next one of its stream begin while it runs (programmatic dependent launch)."""
    return on_device(device) and capability(device) >= OVERLAPPING


def sigmoid_form(problem: Problem, kernel: Kernel) -> int:
    """Return how sigmoid is computed, decided from type and bias alone.

    TANH is one special-function operation and loses small weights, so only the forward uses it, and only where the
    bias is a number that keeps typical weights large enough. In the interpreter, and in float32, the form is PLAIN.
    """
    dtype = problem.query.dtype
    if dtype == torch.float32 or not on_device(problem.query.device):
        return PLAIN
    if kernel != "forward" or problem.form == "accurate":
        return EX2
    known = problem.bias is None and problem.alibi_slopes is None
    return TANH if problem.form == "tanh" or (known and problem.bias_value >= TANH_BIAS[dtype]) else EX2


def form_of(problem: Problem, backend: Chosen) -> str:
    """Return the name of the form in which ``backend``'s forward computes sigmoid: "tanh", "accurate" or "by head"."""
    if backend == "hopper":
        from .hopper import launch as hopper

        return {hopper.TANH: "tanh", hopper.BY_HEAD: "by head"}.get(hopper.sigmoid_form(problem), "accurate")
    return "tanh" if backend == "triton" and sigmoid_form(problem, "forward") == TANH else "accurate"


def rules(problem: Problem) -> int:
    """Return which rules of visibility the kernels are compiled for."""
    return (
        CAUSAL * problem.is_causal
        + WINDOW * (problem.window is not None)
        + LENGTHS * (problem.key_lengths is not None)
        + PACKED * (problem.query_starts is not None)
    )


def heads_together(shared: Tensor, is_causal: bool) -> int:
    """Return how many (batch, head) pairs take turns: long rows come first and the cache still holds their keys."""
    if not is_causal:
        return 1
    return max(1, CACHE // (2 * shared.size(2) * shared.size(3) * shared.element_size()))


def split_keys(plan: Plan) -> int:
    """Return how many keys one program of the statistics kernel reads: few, so that one sequence fills a device."""
    return plan.block_k if plan.block_q == 16 else max(plan.block_k, 256)


def _plan(kernel: Kernel, problem: Problem, *others: Tensor) -> Plan:
    query, key, value = problem.query, problem.key, problem.value
    found = capability(query.device)
    dtype, d_pad = query.dtype, padded(query.size(3))
    packed = problem.query_starts is not None  # a TMA store would write on into the next sequence
    tma = kernel not in STATISTICS and not packed and descriptors.fit(found, (query, key, value, *others))
    block_q, block_k, warps, stages = tiles(kernel, found, dtype, d_pad, tma)
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
    form, gain = sigmoid_form(problem, kernel), WEIGHT_GAIN.get(dtype, 1.0)
    return Plan(block_q, block_k, d_pad, form, gain, GRADIENT_GAIN.get(dtype, 1.0), tma, options)


def forward_plan(problem: Problem, output: Tensor) -> Plan:
    """Return the launch of the forward kernel."""
    return _plan("forward", problem, output)


def query_plan(problem: Problem, grad: Tensor, grad_query: Tensor) -> Plan:
    """Return the launch of the kernel for dQ and the bias's gradient."""
    return _plan("query", problem, grad, grad_query)


def key_plan(problem: Problem, grad: Tensor, grad_key: Tensor, grad_value: Tensor) -> Plan:
    """Return the launch of the kernel for dK and dV."""
    return _plan("key", problem, grad, grad_key, grad_value)


def statistics_plan(problem: Problem, rows: int) -> Plan:
    """Return the launch of the statistics kernel for ``rows`` rows of a sequence."""
    return _plan("few" if rows <= 16 else "statistics", problem)
