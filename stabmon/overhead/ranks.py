"""Cost of several processes: a training under DDP with and without the monitor, and one exchange of their numbers."""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from stabmon.monitor import watch
from stabmon.overhead.task import Task, gpt, gpt_124m
from stabmon.schedule import Schedule
from stabmon.store import open_run

WARM = 3
"""First steps that are left out."""


def ranks(processes: int, steps: int, device: str, *, large: bool = False) -> dict[str, Any]:
    """Train a GPT under DDP on ``processes`` processes, over gloo on a CPU and NCCL on GPUs, every step recorded.

    Steps with and without the monitor take turns. ``reduction_milliseconds`` is the median time of one exchange in the
    writer thread, which includes the wait for the slowest rank, ``reduction_high`` its 95 % quantile.

    Raises:
        RuntimeError: fewer GPUs than processes.
    """
    if device == "cuda" and torch.cuda.device_count() < processes:
        raise RuntimeError(f"{processes} ranks need as many GPUs, this machine has {torch.cuda.device_count()}")
    with tempfile.TemporaryDirectory() as folder:
        spawn(_work, (processes, steps, device, large, folder), nprocs=processes)  # type: ignore[no-untyped-call]
        seconds = np.load(Path(folder) / "seconds.npy")  # [2, steps]: plain, watched
        with open_run(Path(folder) / "ranks") as run:
            exchanged = run.read("reduction_seconds").values[WARM:, 0]
            payload = float(run.read("reduction_bytes").values[-1, 0])
            layers = len(run.info.model.attentions)
    plain, watched = np.median(seconds, axis=1)
    return {
        "ranks": processes,
        "device": device,
        "steps": steps,
        "layers": layers,
        "plain_milliseconds": plain * 1e3,
        "watched_milliseconds": watched * 1e3,
        "ratio": watched / plain,
        "payload_bytes": payload,
        "reduction_milliseconds": float(np.median(exchanged)) * 1e3,
        "reduction_high": float(np.quantile(exchanged, 0.95)) * 1e3,
    }


def _task(device: torch.device, large: bool) -> Task:
    if large:
        return gpt_124m(device)
    return gpt("small", device, layers=4, heads=4, width=128, vocabulary=256, shape=(4, 128))


def _work(rank: int, processes: int, steps: int, kind: str, large: bool, folder: str) -> None:
    """Run one process; the first writes the seconds of its steps."""
    torch.set_num_threads(1)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend, store = "nccl" if device.type == "cuda" else "gloo", f"file://{folder}/store"
    distributed.init_process_group(backend, init_method=store, rank=rank, world_size=processes)
    trainings = [_training(_task(device, large), name, folder) for name in (None, "ranks")]
    seconds = np.array([[one() for one in trainings] for _ in range(WARM + steps)]).T
    for one in trainings:
        if one.keywords["monitor"] is not None:
            one.keywords["monitor"].close()
    if rank == 0:
        np.save(Path(folder) / "seconds.npy", seconds[:, WARM:])
    distributed.destroy_process_group()


def _training(task: Task, name: str | None, folder: str) -> "partial[float]":
    model = DistributedDataParallel(task.model().train())
    optimizer = task.optimizer(model)
    monitor = None
    if name is not None:
        schedule = Schedule(dense=0, every=1)
        monitor = watch(model, optimizer, dir=folder, name=name, schedule=schedule, console=False, trackers=False)
    batches = task.batches()
    return partial(_step, task, model, optimizer, batches, monitor=monitor)


def _step(task: Task, model: Any, optimizer: Any, batches: Any, *, monitor: Any) -> float:
    """Take one step and return its seconds, the device's included."""
    distributed.barrier()
    began = time.perf_counter()
    loss = task.step(model, optimizer, next(batches))
    if monitor is not None:
        monitor.log(loss=loss)
    if task.device.type == "cuda":
        torch.cuda.synchronize(task.device)
    return time.perf_counter() - began
