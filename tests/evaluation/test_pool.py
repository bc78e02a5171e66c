"""Workers end with the process that started them, however it ends, and at once."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SLEEPING = """
from stabmon.evaluation.pool import Pool

if __name__ == "__main__":
    with Pool(2) as pool:
        own_number = "os.write(1, (str(os.getpid()) + chr(10)).encode())"  # one write: two lines cannot mix
        list(pool.each(exec, [f"import os, time; {own_number}; time.sleep(300)"] * 2))
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
    wait_for_the_end(workers)


def children(process: int) -> list[int]:
    """Return the workers among the children of ``process``."""
    found = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for_the_end(processes: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, processes))


def has_begun(worker: int) -> bool:
    """Return whether a worker follows its parent: from then on it leaves Ctrl-C to it."""
    ignored = re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{worker}/status").read_text())
    return ignored is not None and bool(int(ignored[1], 16) & 1 << signal.SIGINT - 1)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("ended_by", "code", "amid_imports"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, -signal.SIGTERM, True), (signal.SIGTERM, -signal.SIGTERM, False)],
    ids=["SIGINT-amid-imports", "SIGTERM-amid-imports", "SIGTERM"],
)
def test_evaluate_ends_with_its_workers(
    ended_by: signal.Signals, code: int, amid_imports: bool, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    command = [sys.executable, "-m", "stabmon", "evaluate", "--jobs", "2", "--device", "cpu", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        wait_until(lambda: len(children(process.pid)) == 2 or process.poll() is not None)
        workers = children(process.pid)
        assert len(workers) == 2
        wait_until(lambda: amid_imports or all(map(has_begun, workers)))
        (os.killpg if ended_by is signal.SIGINT else os.kill)(process.pid, ended_by)
        _, said = process.communicate(timeout=60)  # the matrix would take hours
    assert process.returncode == code, said.decode()
    if ended_by is signal.SIGINT or not amid_imports:  # multiprocessing may say that a parent died amid the imports
        assert b"Traceback" not in said, said.decode()
    wait_for_the_end(workers)
