"""Compile the hopper kernels for sm_90 on a machine without a GPU: ``python compile_ahead.py [DIM ...]``.

Every entry of the launch table, in every form, by its own launcher; bias tensor and output sums go with the form that
they occur with. Prints one JSON object a kernel: what it was compiled for, what its machine code needs and waits for.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from stabmon.kernels.hopper import launch
from stabmon.kernels.problem import Problem

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class H100:
    """What Triton asks of a driver before it compiles."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def stand_in(compiled: list[Any]) -> None:
    """Let launches compile only, and put what they compile into ``compiled``."""

    def compile_only(self, grid):
        return lambda *args, **kwargs: compiled.append(self.run(*args, grid=grid, warmup=True, **kwargs))

    triton.runtime.driver.set_active(H100())
    JITFunction.__getitem__ = compile_only
    torch.cuda.device = lambda device: nullcontext()
    launch.processors = lambda device: 132


def calls(dims: list[int]) -> Iterator[tuple[dict[str, Any], Problem]]:
    types = (torch.bfloat16, torch.float16)
    for (dim, is_causal), dtype, form in product(launch.TABLE, types, (launch.MIXED, launch.TANH)):
        if dim not in dims or (dtype == torch.float16 and form == launch.TANH):
            continue
        tensor = torch.zeros(1, 4, 256, dim, dtype=dtype)
        bias = torch.zeros(4) if form == launch.MIXED else None
        shape = {"dim": dim, "causal": is_causal, "dtype": str(dtype), "form": form}
        yield shape, Problem(tensor, tensor, tensor, bias, 0.0, None, 0.1, is_causal)


def facts(kernel: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage, code = (
            subprocess.run([TOOLS / tool, option, cubin], capture_output=True, text=True, check=True).stdout
            for tool, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    order = re.findall(
        r"MUFU\.(?:TANH|EX2)|WARPGROUP\.DEPBAR\.LE gsb0, 0x[01]|BAR\.SYNC|SYNCS\.ARRIVE\.TRANS64\.A1T0", code
    )
    return {
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "shared": kernel.metadata.shared,
        "products": code.count("HGMMA"),
        "waits": code.count("WARPGROUP.DEPBAR"),
        "waits_written": kernel.asm["ptx"].count("wgmma.wait_group"),
        "register_moves": code.count("USETMAXREG"),
        "overlapped": overlapped(order),
        "unguarded": unguarded(order),
    }


def overlapped(order: list[str]) -> int:
    """Return how many special functions lie, at least, between a wait for S and the wait for the product before it."""
    counts, inside = [], None
    for operation in order:
        if operation.endswith("0x1"):
            inside = 0
        elif operation.endswith("0x0") and inside is not None:
            counts.append(inside)
            inside = None
        elif operation.startswith("MUFU") and inside is not None:
            inside += 1
    return min(counts)


def unguarded(order: list[str]) -> int:
    """Return how many buffers one warp releases before its group's other warps have waited for their products."""
    found, waited = 0, False
    for operation in order:
        if operation.startswith("WARPGROUP"):
            waited = True
        elif operation == "BAR.SYNC":
            waited = False
        elif operation.startswith("SYNCS"):
            found += waited
    return found


def main(dims: list[int]) -> None:
    compiled: list[Any] = []
    stand_in(compiled)
    for shape, problem in calls(dims):
        launch.forward(problem, torch.empty_like(problem.query), problem.bias is not None)
        print(json.dumps(shape | facts(compiled.pop())), flush=True)


if __name__ == "__main__":
    main([int(dim) for dim in sys.argv[1:]] or [64, 128])
