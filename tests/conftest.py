"""One thread of torch a process, Triton's interpreter, workers for the whole suite, waiting, and a model's hooks."""

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for the processes that tests start

from collections.abc import Callable
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is first imported, which torch.compile's own modules do

MOST_WORKERS = 8
PATIENCE = 300.0
"""Seconds that a test waits for another thread or process; the suite's own limit for a test is longer."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return one worker a core for the whole suite; none for named tests, or where tests would share a GPU."""
    if config.getoption("file_or_dir") or not _is_parallel_safe():
        return 0
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _is_parallel_safe() -> bool:
    return not torch.cuda.is_available()


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Wait until something holds, however slow the machine is."""

    def wait(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, f"it did not hold within {PATIENCE:.0f} s"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def count_hooks() -> Callable[[Any], int]:
    """Count the hooks of a model's modules and parameters, or of an optimizer; torch has no public way to list them."""
    on_modules = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_forward_hooks_with_kwargs")
    on_optimizers = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")

    def count(owner: Any) -> int:
        if hasattr(owner, "param_groups"):
            return sum(len(getattr(owner, kind)) for kind in on_optimizers)
        modules = sum(len(getattr(module, kind)) for module in owner.modules() for kind in on_modules)
        return modules + sum(len(weight._post_accumulate_grad_hooks or ()) for weight in owner.parameters())

    return count
