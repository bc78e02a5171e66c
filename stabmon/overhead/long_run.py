"""A long watched training of a small model: whether the monitor's cost, memory and open files stay as they are."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from stabmon.monitor import watch
from stabmon.overhead.task import gpt

PARTS = 10
"""Parts of the training; the table has a row for each."""


def long_run(steps: int) -> dict[str, Any]:
    """Train a GPT of 2 layers for ``steps`` steps on the CPU, with the default schedule; return a row for each tenth.

    A row holds the step it ends at, microseconds a step of the whole training and of stabmon alone (hooks, and
    processor time of its threads), and then the process's memory, its open files, and the size of the run's folder.
    """
    task = gpt("small", torch.device("cpu"), layers=2, heads=2, width=32, vocabulary=64, shape=(2, 32))
    model = task.model().train()
    optimizer, batches = task.optimizer(model), task.batches()
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        watch(model, optimizer, dir=folder, name="long", console=False, trackers=False) as monitor,
    ):
        for part in range(PARTS):
            first, last = steps * part // PARTS, steps * (part + 1) // PARTS
            began, own = time.perf_counter(), monitor.seconds
            for _ in range(first, last):
                monitor.log(loss=task.step(model, optimizer, next(batches)))
            monitor.flush()
            number = max(last - first, 1)
            rows.append(
                {
                    "step": last,
                    "step_microseconds": (time.perf_counter() - began) / number * 1e6,
                    "own_microseconds": (monitor.seconds - own) / number * 1e6,
                    **_process(),
                    "run_mib": sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 2**20,
                }
            )
        failures = list(monitor.failures)
    return {"steps": steps, "rows": rows, "failures": failures}


def _process() -> dict[str, Any]:
    """Return memory and open files of this process; None where the system does not list them as Linux does."""
    status, files = Path("/proc/self/statm"), Path("/proc/self/fd")
    if not status.exists():
        return {"memory_mib": None, "open_files": None}
    pages = int(status.read_text().split()[1])
    return {"memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "open_files": len(list(files.iterdir()))}
