"""Every kernel compiles for devices that are not here, through its own launcher."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_ahead.py")
ROOT = SCRIPT.parents[2]
pytestmark = pytest.mark.slow


def kernels_for(capability, cache):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("capability", "target", "tensor_cores"),
    [((8, 0), "sm_80", "mma.sync"), ((9, 0), "sm_90a", "wgmma.mma_async"), ((10, 0), "sm_100a", "tcgen05.mma")],
    ids=["sm80", "sm90", "sm100"],
)
def test_every_kernel_compiles_without_a_gpu(capability, target, tensor_cores, tmp_path):
    kernels = kernels_for(capability, tmp_path)
    assert {kernel["kernel"] for kernel in kernels} == {"forward", "split", "bwd_dq", "bwd_dkdv", "statistics", "sums"}
    for kernel in kernels:
        is_float32 = "dtype" in kernel["shape"]
        is_attention = kernel["kernel"] not in ("statistics", "sums")
        assert kernel["target"] == target, kernel
        if kernel["kernel"] == "split" and not is_float32:
            assert kernel["tensor_cores"] in ("mma.sync", tensor_cores), kernel  # tiles of 16 rows take the older ones
        elif is_attention:
            assert kernel["tensor_cores"] == (None if is_float32 else tensor_cores), kernel
        by_pointers = kernel["kernel"] == "split" or {"broadcast", "packed"} & set(kernel["shape"])
        assert kernel["tma"] == (capability >= (9, 0) and is_attention and not by_pointers), kernel
        # By triton 3.9 alone two forms of the split kernel keep an address on the stack, outside of loops.
        allowed = 8 if kernel["kernel"] == "split" else 0
        assert (kernel["stack"] or 0) <= allowed, f"registers spill: {kernel}"
        check_overlap(kernel, capability >= (9, 0))
    if capability == (9, 0):
        fixed = {kernel["kernel"]: kernel["tanh"] for kernel in kernels if kernel["shape"]["bias"] == "None"}
        assert not any(kernel["tanh"] for kernel in kernels if kernel["shape"]["bias"] != "None")
        assert not fixed["bwd_dq"]
        assert not fixed["bwd_dkdv"]


def check_overlap(kernel, can_overlap):
    """A forward lets statistics begin before all else; these read what it writes after a wait, and only that."""
    order, early = kernel["order"], kernel["early"]
    if kernel["kernel"] in ("forward", "split"):
        assert ("launch_dependents" in order) <= can_overlap
        assert "launch_dependents" not in order[1:], kernel
    elif kernel["kernel"] == "sums":
        assert early == can_overlap
        assert order == (["memory", "wait", "sums", "memory"] if early else ["memory", "sums", "memory"]), kernel
    elif kernel["kernel"] == "statistics" and early:
        assert order.count("wait") == 1, kernel
        assert order.index("memory") < order.index("wait") < order.index("sums"), kernel
    else:
        assert not early
        assert not {"wait", "launch_dependents"} & set(order), kernel
