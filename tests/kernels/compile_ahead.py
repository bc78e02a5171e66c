"""Compile what the launchers would launch, for devices that are not here: ``python compile_ahead.py MAJOR MINOR``.

The launchers run as they are, on CPU tensors, but for three things: the capability is a given one, the launch stops
after compiling, and Triton is given a device of that capability. Prints one JSON object a kernel. Only for 9.0 does
it go on from PTX to machine code, to see that no register spills.
"""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.nvidia.compiler import CUDABackend

from stabmon.kernels import device
from stabmon.kernels.problem import Problem
from stabmon.kernels.triton import backward, forward, split, statistics_launch
from tests.kernels.absent_device import compile_only


def forward_and_statistics(p: Problem, rows: int) -> None:
    measure = partial(statistics_launch.begin, rows=rows, offset=0.5, sequences=1, early=True)
    forward.forward(p, torch.empty_like(p.query), measure)


def gradients(p: Problem, grad: torch.Tensor) -> None:
    grads = [torch.empty_like(p.query), torch.empty_like(p.key), torch.empty_like(p.value)]
    if p.attn_mask is not None and p.attn_mask.is_floating_point():
        grads.append(torch.empty_like(p.attn_mask))
    backward.backward(p, grad, grads, p.bias is not None and p.bias.dim() == 1)


def split_keys(p: Problem) -> None:
    """Compile tiles of few rows and of many, with partial outputs and without: both where causal, else each once."""
    measure = partial(statistics_launch.begin, rows=0, offset=0.5, sequences=1, early=True)
    few = p._replace(query=p.query[:, :, :1])
    for call, splits in ((few, 2), (p, 1), (few, 1), (p, 2))[: 4 if p.is_causal else 2]:
        split.forward(call, torch.empty_like(call.query), measure if splits == 2 else None, splits)


CALLS = {
    "split": lambda p, grad: split_keys(p),
    "forward": lambda p, grad: forward_and_statistics(p, 0),
    "backward": gradients,
    "statistics": lambda p, grad: [
        statistics_launch.begin(p, rows, 0.5, 1, early)(torch.zeros(1, 4, 3))
        for rows, early in ((16, True), (64, False))
    ],
}
ATTENTION = ("forward", "split", "backward")
SHAPES: dict[tuple[int, int], list[tuple[dict[str, Any], tuple[str, ...]]]] = {
    (9, 0): [
        ({"dim": 64, "bias": None, "causal": False}, ATTENTION),
        ({"dim": 64, "bias": "tensor", "causal": True}, tuple(CALLS)),
        ({"dim": 128, "bias": "tensor", "causal": True, "key_heads": 2}, ATTENTION),
        ({"dim": 80, "bias": None, "causal": True, "alibi": True}, ATTENTION),
        ({"dim": 256, "bias": "tensor", "causal": True}, tuple(CALLS)),
        ({"dim": 128, "bias": None, "causal": True, "broadcast": True}, ATTENTION),
        ({"dim": 64, "bias": "tensor", "causal": False, "window": 128, "ahead": 17}, tuple(CALLS)),
        ({"dim": 128, "bias": "sequence", "causal": False, "lengths": True}, tuple(CALLS)),
        ({"dim": 128, "bias": "sequence", "causal": True, "packed": True}, ("forward", "backward", "statistics")),
        ({"dim": 64, "bias": "sequence", "causal": True, "mask": (1, 1, 1, 256)}, tuple(CALLS)),
        ({"dim": 128, "bias": "tensor", "causal": False, "mask": (1, 1, 1, 256), "added": True}, tuple(CALLS)),
        ({"dim": 64, "bias": "tensor", "causal": False, "mask": (1, 4, 256, 256), "added": True}, tuple(CALLS)),
        ({"dim": 128, "bias": "sequence", "causal": False, "mask": (1, 1, 256, 256)}, ATTENTION),
        ({"dim": 128, "bias": "tensor", "causal": False, "mask": (1, 1, 256, 256), "added": True}, ATTENTION),
        ({"dim": 128, "bias": None, "causal": False, "key_heads": 1, "lengths": True, "page": 16}, ("split",)),
        ({"dim": 128, "bias": "sequence", "causal": True, "key_heads": 1, "lengths": True, "page": 256}, ("split",)),
        ({"dim": 64, "bias": "tensor", "causal": True, "lengths": True, "page": 64, "alibi": 2}, ("split",)),
        ({"dim": 64, "bias": "tensor", "causal": True, "window": 128, "lengths": True, "page": 32}, ("split",)),
        ({"dim": 256, "bias": None, "causal": True, "lengths": True, "page": 16}, ("split",)),
        ({"dim": 128, "bias": "tensor", "causal": True, "alibi": 2}, ATTENTION),
    ],
    (8, 0): [
        ({"dim": 64, "bias": "tensor", "causal": True}, tuple(CALLS)),
        ({"dim": 128, "bias": None, "causal": True, "alibi": True}, ATTENTION),
        ({"dim": 128, "bias": None, "causal": True, "window": 128, "packed": True}, ("forward", "backward")),
        ({"dim": 64, "bias": "tensor", "causal": True, "dtype": torch.float32}, ATTENTION),
    ],
    (10, 0): [
        ({"dim": 128, "bias": "tensor", "causal": True, "window": 128, "lengths": True}, tuple(CALLS)),
    ],
}


def problem(
    dim, bias, causal, alibi=False, key_heads=4, dtype=torch.bfloat16, broadcast=False, window=None, lengths=False,
    packed=False, mask=None, added=False, ahead=None, page=None,
) -> tuple[Problem, torch.Tensor]:  # fmt: skip
    def tensor(heads):
        return torch.empty(1, 1 if broadcast else heads, 256, dim, dtype=dtype).expand(1, heads, 256, dim)

    per_head = {"tensor": torch.zeros(4), "sequence": torch.zeros(1, 1), None: None}[bias]
    slopes = torch.ones((1, 4) if alibi == 2 else 4) if alibi else None
    key_lengths = torch.ones(1, dtype=torch.int32) if lengths else None
    starts = torch.zeros(2, dtype=torch.int32) if packed else None
    longest = 256 if packed else 0
    tensors = tensor(4), tensor(key_heads), tensor(key_heads)
    rules = (causal, window, key_lengths, starts, starts, longest, longest)
    attn_mask = None if mask is None else torch.zeros(mask, dtype=torch.bfloat16 if added else torch.bool)
    made = Problem(*tensors, per_head, -math.log(256), slopes, dim**-0.5, *rules, attn_mask=attn_mask, ahead=ahead)
    if page is not None:
        pool = torch.empty(256 // page, page, key_heads, dim, dtype=dtype).transpose(1, 2)
        table = torch.zeros(1, 256 // page, dtype=torch.int32)
        made = made._replace(key=pool, value=pool, page_table=table, cached=True)
    return made, tensor(4)


def compile_for(capability: tuple[int, int]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    compiled: list[Any] = []
    compile_only(capability, compiled)
    device.capability = lambda _: capability
    device.on_device = lambda _: True
    device.processors = lambda _: 132
    for shape, kernels in SHAPES[capability]:
        for name in kernels:
            compiled.clear()
            CALLS[name](*problem(**shape))
            for kernel in compiled:
                yield kernel.name.removesuffix("_kernel"), shape, kernel


def stack(kernel) -> int | None:
    """Bytes of local memory a thread, 0 when no register spills; None where the wheel has no tool to say it."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not kernel.asm.get("cubin") or not tool.exists():
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", usage).group(1))


def order(kernel) -> list[str]:
    """Return what the kernel does, in this order: read or write memory, release the next kernel, wait, read sums."""
    names = [name for name, kind in kernel.src.signature.items() if kind != "constexpr"]
    tainted, found = {f"param_{names.index('sums')}]"} if "sums" in names else set(), []
    for line in kernel.asm["ptx"].splitlines():
        if control := re.search(r"griddepcontrol\.(\w+)", line):
            found.append(control[1])
        target, _, given = line.strip().partition(",")
        uses = tainted & set(re.findall(r"%\w+|param_\d+\]", given or target))
        if access := re.search(r"\b(?:ld|st)\.global.*?\[(.*)|cp\.async.*?\[(.*)", line):
            address = set(re.findall(r"%\w+", access[1] or access[2]))
            found.append("sums" if tainted & address else "memory")
        elif uses and (register := re.search(r"%\w+$", target)):
            tainted.add(register[0])
    return [step for i, step in enumerate(found) if i == 0 or found[i - 1] != step]


def report(name, shape, kernel) -> dict[str, Any]:
    ptx = kernel.asm["ptx"]
    return {
        "kernel": name,
        "shape": {key: str(value) for key, value in shape.items()},
        "target": re.search(r"^\.target (\w+)", ptx, re.MULTILINE).group(1),
        "tma": "cp.async.bulk.tensor" in ptx,
        "tensor_cores": next((op for op in ("tcgen05.mma", "wgmma.mma_async", "mma.sync") if op in ptx), None),
        "tanh": "tanh.approx" in ptx,
        "stack": stack(kernel),
        "order": order(kernel),
        "early": kernel.metadata.launch_pdl,
    }


if __name__ == "__main__":
    target = (int(sys.argv[1]), int(sys.argv[2]))
    if target != (9, 0):
        CUDABackend.make_cubin = lambda *_: b""
    for found in compile_for(target):
        print(json.dumps(report(*found)), flush=True)
