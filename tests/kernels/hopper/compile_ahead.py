"""Compile the hopper kernels for sm_90 without a GPU: ``python compile_ahead.py DIM [brief | pairs | all]``.

Every entry of the forward's table with all that a call can ask for, and the backward's kernels in some of their forms,
by their own launchers; brief: each kernel once; all: every form of every kernel; pairs: six forms of 24 in which
every two values of what a kernel is compiled for meet. Prints one JSON object a kernel: what it was compiled for, by
which Triton, what its machine code needs and waits for.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import torch
import triton

from stabmon.kernels import device
from stabmon.kernels.hopper import backward_launch, forward_launch
from stabmon.kernels.hopper.requirements import DTYPES
from stabmon.kernels.problem import Problem
from tests.kernels.absent_device import compile_only
from tests.kernels.hopper import machine_code

KINDS = {"tanh": (None, 0.0), "exact": (None, -20.0), "by head": (torch.zeros(4), 0.0)}
ALL = tuple(product(KINDS, (False, True), (False, True), DTYPES))
PAIRS = (
    ("tanh", False, False, torch.bfloat16),
    ("tanh", True, True, torch.float16),
    ("exact", False, True, torch.float16),
    ("exact", True, False, torch.bfloat16),
    ("by head", False, False, torch.float16),
    ("by head", True, True, torch.bfloat16),
)
"""Forms in which every two values of ``ALL`` meet."""
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def stand_in(compiled: list[Any]) -> None:
    """Let launches compile only, and put what they compile into ``compiled``."""
    compile_only((9, 0), compiled)
    torch.cuda.device = lambda device: nullcontext()
    device.processors = lambda device: 132


def backward_calls(dim: int) -> Iterator[tuple[dict[str, Any], Problem]]:
    """Yield the fused kernel with a number and with a learnable bias, and the two kernels whose bits repeat."""
    for is_causal, dtype, learnable, deterministic in (
        (dim == 64, torch.bfloat16, False, False),
        (dim == 128, torch.bfloat16, True, False),
        (True, torch.float16, False, True),
    ):
        tensor = torch.zeros(1, 4, 256, dim, dtype=dtype)
        bias = torch.zeros(4) if learnable else None
        shape = {"dim": dim, "causal": is_causal, "dtype": str(dtype), "learnable": learnable}
        yield shape, Problem(tensor, tensor, tensor, bias, 0.0, None, 0.1, is_causal, deterministic=deterministic)


def calls(dim: int) -> Iterator[tuple[dict[str, Any], Problem]]:
    """Yield calls with a learnable bias, whose forward holds both forms of sigmoid, and with a number."""
    for is_causal, dtype, bias, level in (
        (False, torch.bfloat16, torch.zeros(4), 0.0),
        (True, torch.float16, torch.zeros(4), 0.0),
        (False, torch.bfloat16, None, 0.0),
        (True, torch.bfloat16, None, 0.0),
        (True, torch.bfloat16, None, -20.0),
    ):
        tensor = torch.zeros(1, 4, 256, dim, dtype=dtype)
        problem = Problem(tensor, tensor, tensor, bias, level, None, 0.1, is_causal)
        shape = {"dim": dim, "causal": is_causal, "dtype": str(dtype), "level": level, "tensor": bias is not None}
        yield shape | forward_launch.TABLE[dim]._asdict(), problem


def every_call(
    dim: int, forms: Iterable[tuple[str, bool, bool, torch.dtype]]
) -> Iterator[tuple[dict[str, Any], Problem]]:
    """Yield calls that differ in what a kernel is compiled for: form of sigmoid, mask, repeating or not, type."""
    for kind, is_causal, deterministic, dtype in forms:
        tensor, (bias, level) = torch.zeros(1, 4, 256, dim, dtype=dtype), KINDS[kind]
        shape = {"dim": dim, "causal": is_causal, "dtype": str(dtype), "kind": kind, "deterministic": deterministic}
        yield shape, Problem(tensor, tensor, tensor, bias, level, None, 0.1, is_causal, deterministic=deterministic)


def facts(kernel: Any) -> dict[str, Any]:
    """Return what a kernel's code says.

    beside: special functions between a wait for S and that for the product before it. forgetful: roles whose loop over
    iterations does not carry its position in the rings. Triton 3.6 folds ``step + (a - b) + b`` there to ``step``.
    """
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        usage, code = (
            subprocess.run([TOOLS / tool, option, cubin], capture_output=True, text=True, check=True).stdout
            for tool, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    return {
        "triton": triton.__version__,
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "shared": kernel.metadata.shared,
        "products": code.count("HGMMA"),
        "waits": code.count("WARPGROUP.DEPBAR"),
        "waits_written": kernel.asm["ptx"].count("wgmma.wait_group"),
        "released_first": released_first(kernel.asm["ptx"]),
        "register_moves": code.count("USETMAXREG"),
        "beside": machine_code.overlapped(code),
        "unguarded": machine_code.unguarded(code),
        "undefined": machine_code.undefined(code),
        "forgetful": len(re.findall(r"^ {6}scf\.for (?!.*iter_args)", kernel.asm["ttgir"], re.MULTILINE)),
        "spills": machine_code.spills(code),
    }


def released_first(ptx: str) -> bool:
    """Return whether the next kernel of the stream is released once, before this one touches memory."""
    touched = re.search(r"\b(?:ld|st|cp|atom|red)\.(?!param)", ptx)
    return ptx.count("griddepcontrol.") == 1 and ptx.index("griddepcontrol.launch_dependents") < touched.start()


def compile_forms(dim: int, forms: Iterable[tuple[str, bool, bool, torch.dtype]], compiled: list[Any]) -> None:
    """Compile the forward with statistics and without, and the backward with and without the bias's gradient."""
    for shape, problem in every_call(dim, forms):
        grads = tuple(torch.empty_like(tensor) for tensor in problem[:3])
        for wanted in (False, True):
            if not problem.deterministic:
                forward_launch.forward(problem, grads[0], (lambda _: lambda parts: parts) if wanted else None)
            if not wanted or problem.bias is not None:
                backward_launch.backward(problem, problem.query, grads, wanted)
            for kernel in compiled:
                print(json.dumps({"kernel": kernel.name, "wanted": wanted} | shape | facts(kernel)), flush=True)
            compiled.clear()


def main(dim: int, extent: str = "") -> None:
    compiled: list[Any] = []
    stand_in(compiled)
    if extent in ("all", "pairs"):
        compile_forms(dim, ALL if extent == "all" else PAIRS, compiled)
        return
    brief = extent == "brief"
    first = 1 if brief else 0
    for shape, problem in list(calls(dim))[first : 2 if brief else None]:
        forward_launch.forward(problem, torch.empty_like(problem.query), lambda _: lambda parts: parts)
        kernel = compiled.pop()
        print(json.dumps({"kernel": kernel.name, "wanted": True} | shape | facts(kernel)), flush=True)
    for shape, problem in list(backward_calls(dim))[first:]:
        grads = tuple(torch.empty_like(tensor) for tensor in problem[:3])
        backward_launch.backward(problem, problem.query, grads, problem.bias is not None)
        for kernel in compiled:
            print(json.dumps({"kernel": kernel.name} | shape | facts(kernel)), flush=True)
        compiled.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
