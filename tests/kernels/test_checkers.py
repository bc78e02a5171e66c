"""CUDA's memory and race checkers find nothing in a small call of every kernel.

Racecheck does not follow mbarriers, and so reports races in correct warp-specialised kernels: hopper's are left out.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("checked_calls.py")
CHECKER = shutil.which("compute-sanitizer")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHECKER is None, reason="needs compute-sanitizer on the PATH"),
]


@pytest.mark.parametrize(("tool", "backend"), [("memcheck", "triton"), ("memcheck", "hopper"), ("racecheck", "triton")])
def test_the_memory_checkers_report_no_error(tool, backend):
    # One allocation a tensor: else an access beyond a tensor may land in the next one unseen.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    command = [CHECKER, "--tool", tool, "--report-api-errors", "no", "--error-exitcode", "9"]
    command += [sys.executable, SCRIPT, backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "done" in done.stdout
