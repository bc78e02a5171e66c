"""Time of the host for one call on tiny tensors, beside cuDNN's softmax: forward, with a gradient to come, backward."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..api import sigmoid_attention
from ..hopper import requirements
from ..problem import Backend, Traits
from .speed import PEERS, softmax
from .timing import host_medians, machine

SHAPE = (1, 4, 64, 128)
"""[B, H, N, D]: a kernel takes less time than its launch."""
KINDS = ("forward", "forward with gradient", "backward")


def host(rounds: int) -> dict[str, Any]:
    """Return device, versions and microseconds, by contender and kind of call.

    Raises:
        RuntimeError: there is no CUDA device.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("bench needs a CUDA device, this machine has none")
    tensors = [torch.randn(SHAPE, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    ways: dict[str, Callable[..., Tensor]] = {"cudnn": partial(softmax, PEERS["cudnn"], is_causal=True)}
    for backend in _backends(tensors[0]):
        ways[backend] = partial(sigmoid_attention, is_causal=True, backend=backend)
    found = {kind: host_medians(calls, rounds) for kind, calls in calls_by_kind(ways, tensors).items()}
    times = {name: {kind: round(found[kind][name], 1) for kind in KINDS} for name in ways}
    return {**machine(), "microseconds": times}


def _backends(query: Tensor) -> tuple[Backend, ...]:
    """Return the fused backends of this device; ``auto`` among them, which has to choose."""
    traits = Traits(query.device, query.dtype, query.size(3))
    return ("auto", "hopper", "triton") if requirements.preferred(traits) else ("auto", "triton")


def calls_by_kind(
    ways: dict[str, Callable[..., Tensor]], tensors: list[Tensor]
) -> dict[str, dict[str, Callable[[], object]]]:
    """Return calls by kind and contender; ``tensors`` are query, key, value and the output's gradient."""
    *plain, grad = tensors
    leaves = [tensor.clone().requires_grad_() for tensor in plain]
    outputs = {name: way(*leaves) for name, way in ways.items()}
    return {
        "forward": {name: partial(way, *plain) for name, way in ways.items()},
        "forward with gradient": {name: partial(way, *leaves) for name, way in ways.items()},
        "backward": {
            name: partial(torch.autograd.grad, output, leaves, grad, retain_graph=True)
            for name, output in outputs.items()
        },
    }


def table(found: dict[str, Any]) -> str:
    """Return ``found`` as Markdown."""
    lines = [f"| host time, µs | {' | '.join(KINDS)} |", "|---" * (1 + len(KINDS)) + "|"]
    for name, times in found["microseconds"].items():
        lines.append(f"| {name} | " + " | ".join(f"{times[kind]:.0f}" for kind in KINDS) + " |")
    return "\n".join(lines)
