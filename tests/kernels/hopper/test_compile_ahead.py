"""Every hopper kernel compiles for sm_90, and its machine code is what the source means."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stabmon.kernels.hopper.sizes import SLAB

SCRIPT = Path(__file__).with_name("compile_ahead.py")
pytestmark = pytest.mark.slow
SPILLS = 4
"""Accesses to the stack that a loop over tiles may have at head dims to 64 with a learnable bias; no other has any."""
STACK = {64: 24, 128: 8}
"""Bytes of stack that the kernel for dK and dV may use, by head dim; no other backward compiled here has any."""
THREAD_INDEX = 8
"""Bytes of stack in which Triton 3.9 keeps a thread's index from the entry to the first work item of one forward."""


def kernels_for(dim, cache):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(SCRIPT.parents[3]), "TRITON_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, SCRIPT, str(dim)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("dim", [64, 128], ids=["D64", "D128"])
def test_every_kernel_compiles_without_a_gpu(dim, tmp_path):
    kernels = kernels_for(dim, tmp_path)
    rounding = [kernel for kernel in kernels if kernel["kernel"] == "round_kernel"]
    assert len(rounding) == 2
    assert all(kernel["stack"] == kernel["products"] == 0 for kernel in rounding)
    kernels = [kernel for kernel in kernels if kernel not in rounding]
    for kernel in kernels:
        assert kernel["products"] > 0
        allowed = SPILLS if dim == 64 and kernel.get("learnable") else 0
        assert kernel["spills"] <= allowed, f"a loop over tiles spills registers: {kernel}"
        assert kernel["waits"] == kernel["waits_written"], f"products are serialised: {kernel}"
        assert kernel["register_moves"] > 0, kernel
        assert kernel["unguarded"] == 0, kernel
        assert kernel["undefined"] == [], f"the assembler lost a descriptor: {kernel}"
        assert kernel["forgetful"] == 0, f"a work item begins at the wrong buffer of the rings: {kernel}"
    check_forward([kernel for kernel in kernels if kernel["kernel"] == "forward_kernel"], dim)
    backward = [kernel for kernel in kernels if kernel["kernel"] != "forward_kernel"]
    assert [kernel["kernel"] for kernel in backward] == ["bwd_dkdv_kernel"] * 3 + ["bwd_dq_kernel"]
    assert all(kernel["shared"] <= 227 * 1024 for kernel in backward)
    for kernel in backward:
        allowed = STACK[dim] if kernel["kernel"] == "bwd_dkdv_kernel" else 0
        assert kernel["stack"] <= allowed, f"registers spill: {kernel}"


def check_forward(kernels, dim):
    assert len(kernels) == 5
    for kernel in kernels:
        assert kernel["released_first"], kernel
        assert kernel["spills"] == 0, f"registers spill: {kernel}"
        allowed = THREAD_INDEX if dim == 128 and kernel["tensor"] and not kernel["causal"] else 0
        assert kernel["stack"] <= allowed, f"registers spill: {kernel}"
        if kernel["overlapped"]:
            assert kernel["beside"] >= kernel["block_k"] // 2, f"products are waited for too early: {kernel}"
        rows = 3 * SLAB * kernel["consumers"] + 2 * kernel["stages"] * kernel["block_k"]
        assert 2 * dim * rows <= kernel["shared"] <= 227 * 1024
