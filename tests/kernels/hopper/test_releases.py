"""Every hopper kernel compiles under every Triton release that is supported, not only under the installed one.

STABMON_TRITONS names a folder with one folder a release, as ``pip install --no-deps --target FOLDER/3.6.0
triton==3.6.0`` makes it; ``.ci/run`` does so.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stabmon.kernels import releases

SCRIPT = Path(__file__).with_name("compile_ahead.py")
pytestmark = pytest.mark.slow
MEASURED = (3, 6)
"""The release with which everything is measured: under it no form of a kernel has any stack. ``compile_ahead.py``
compiles all of them with ``all``, and here those in which every two values of what it is compiled for meet."""
STACK = 24
"""Bytes of stack that a kernel may use between its loops over tiles, in which none touches it, under other releases."""
FOLDER = os.environ.get("STABMON_TRITONS")
FOLDERS = sorted(path for path in Path(FOLDER).iterdir() if path.is_dir()) if FOLDER else []


def series(folder):
    return tuple(int(part) for part in folder.name.split(".")[:2])


@pytest.mark.skipif(not FOLDERS, reason="STABMON_TRITONS names no folder of Triton releases")
def test_every_supported_release_is_there():
    (major, oldest), (_, newest) = releases.SUPPORTED
    there = {series(folder) for folder in FOLDERS} | {releases.INSTALLED}
    assert {(major, minor) for minor in range(oldest, newest + 1)} <= there


@pytest.mark.parametrize("dim", [64, 128], ids=["D64", "D128"])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_kernel_compiles(folder, dim, tmp_path):
    measured = series(folder) == MEASURED
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, (folder, SCRIPT.parents[3]))),
        "TRITON_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, SCRIPT, str(dim), "pairs" if measured else "brief"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert {kernel["kernel"] for kernel in kernels} == {
        "forward_kernel",
        "bwd_dkdv_kernel",
        "bwd_dq_kernel",
        "round_kernel",
    }
    for kernel in kernels:
        assert kernel["triton"] == folder.name
        assert (kernel["products"] > 0) == (kernel["kernel"] != "round_kernel")
        assert kernel["shared"] <= 227 * 1024
        assert kernel["waits"] == kernel["waits_written"], f"products are serialised: {kernel}"
        assert kernel["released_first"] == (kernel["kernel"] == "forward_kernel" and kernel["wanted"])
        assert kernel["spills"] == 0, f"a loop over tiles spills registers: {kernel}"
        assert kernel["stack"] <= (0 if measured else STACK), f"registers spill: {kernel}"
        assert kernel["unguarded"] == 0, kernel
        assert kernel["undefined"] == [], f"the assembler lost a descriptor: {kernel}"
        assert kernel["forgetful"] == 0, f"a work item begins at the wrong buffer of the rings: {kernel}"
