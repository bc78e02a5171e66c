"""Workers end with the process that started them, however it ends, and at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLEEPING = """
from stabmon.evaluation.pool import Pool

if __name__ == "__main__":
    with Pool(2) as pool:
        list(pool.each(exec, ["import os, time; print(os.getpid(), flush=True); time.sleep(300)"] * 2))
"""


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_no_worker_outlives_the_process_that_started_it(ended_by: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "sleeping.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    assert all(is_running(worker) for worker in workers)
    if ended_by is signal.SIGINT:
        os.killpg(process.pid, ended_by)  # as a terminal does for Ctrl-C
    else:
        process.send_signal(ended_by)
    process.communicate(timeout=60)  # the tasks would take 300 s
    deadline = time.monotonic() + 60
    while any(is_running(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(is_running(worker) for worker in workers)
