"""Compile the hopper kernels for sm_90 on a machine without a GPU: ``python compile_ahead.py DIM [brief]``.

Every entry of the forward's table with all that a call can ask for, and the backward's kernels in some of their forms,
by their own launchers; brief: each kernel once. Prints one JSON object a kernel: what it was compiled for, by which
Triton, what its machine code needs and waits for.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import triton

from stabmon.kernels.hopper import backward_launch, launch
from stabmon.kernels.problem import Problem
from tests.kernels.absent_device import compile_only

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def stand_in(compiled: list[Any]) -> None:
    """Let launches compile only, and put what they compile into ``compiled``."""
    compile_only((9, 0), compiled)
    torch.cuda.device = lambda device: nullcontext()
    launch.processors = lambda device: 132


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
    """Yield calls with a learnable bias, whose forward holds both forms of sigmoid."""
    for is_causal, dtype in ((False, torch.bfloat16), (True, torch.bfloat16), (True, torch.float16)):
        tensor = torch.zeros(1, 4, 256, dim, dtype=dtype)
        shape = {"dim": dim, "causal": is_causal, "dtype": str(dtype)}
        yield shape, Problem(tensor, tensor, tensor, torch.zeros(4), 0.0, None, 0.1, is_causal)


def facts(kernel: Any) -> dict[str, Any]:
    """Return what a kernel's code says; forgetful: roles whose loop over turns does not carry its place in the rings.

    Triton 3.6 folds ``step + (a - b) + b`` in such a loop to ``step``.
    """
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
        "triton": triton.__version__,
        "stack": int(re.search(r"STACK:(\d+)", usage)[1]),
        "shared": kernel.metadata.shared,
        "products": code.count("HGMMA"),
        "waits": code.count("WARPGROUP.DEPBAR"),
        "waits_written": kernel.asm["ptx"].count("wgmma.wait_group"),
        "released_first": released_first(kernel.asm["ptx"]),
        "register_moves": code.count("USETMAXREG"),
        "overlapped": overlapped(order),
        "unguarded": unguarded(order),
        "forgetful": len(re.findall(r"^ {6}scf\.for (?!.*iter_args)", kernel.asm["ttgir"], re.MULTILINE)),
        "spills": spills(code),
    }


def released_first(ptx: str) -> bool:
    """Say whether the next kernel of the stream is let go once, before this one touches memory."""
    touched = re.search(r"\b(?:ld|st|cp|atom|red)\.(?!param)", ptx)
    return ptx.count("griddepcontrol.") == 1 and ptx.index("griddepcontrol.launch_dependents") < touched.start()


def spills(code: str) -> int:
    """Return how many accesses to the stack there are in the loop over tiles that has most of them.

    A loop over tiles holds products, and no other loop that does.
    """
    starts: dict[str, int] = {}
    instructions: list[str] = []
    for line in code.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            starts[label[1]] = len(instructions)
        elif instruction := re.search(r"/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            instructions.append(instruction[1])
    jumps = [(i, re.match(r"@!?U?P\d+ BRA.*?(\.L_x_\d+)", text)) for i, text in enumerate(instructions)]
    spans = [(starts[jump[1]], i) for i, jump in jumps if jump and starts.get(jump[1], i) < i]
    loops = [span for span in spans if any("HGMMA" in text for text in instructions[slice(*span)])]
    inner = [(a, b) for a, b in loops if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in loops)]
    return max((sum(text.startswith(("LDL", "STL")) for text in instructions[a:b]) for a, b in inner), default=0)


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
    return min(counts, default=0)


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


def main(dim: int, brief: bool) -> None:
    compiled: list[Any] = []
    stand_in(compiled)
    first = 1 if brief else 0
    for shape, problem in list(calls(dim))[first : 2 if brief else None]:
        launch.forward(problem, torch.empty_like(problem.query), lambda _: lambda parts: parts)
        print(json.dumps({"kernel": "forward"} | shape | facts(compiled.pop())), flush=True)
    for shape, problem in list(backward_calls(dim))[first:]:
        grads = tuple(torch.empty_like(tensor) for tensor in problem[:3])
        backward_launch.backward(problem, problem.query, grads, problem.bias is not None)
        for kernel in compiled:
            print(json.dumps({"kernel": kernel.name} | shape | facts(kernel)), flush=True)
        compiled.clear()


if __name__ == "__main__":
    main(int(sys.argv[1]), "brief" in sys.argv[2:])
