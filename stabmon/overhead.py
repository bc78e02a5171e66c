"""Overhead of the monitor: step times of one model that trains on with the monitor and without, step by step.

Steps go in pairs, one with the hooks on and one with the hooks off, in a random order, so that other load
on the machine slows both alike. The writer thread works on a row during the next watched step's backward
pass, so its share, too, falls to watched steps. Attaching and removing hooks is not timed.
"""

import tempfile
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stabmon.config import RunConfig
from stabmon.monitor import Monitor, watch
from stabmon.schedule import Schedule
from stabmon.workloads import training
from stabmon.workloads.workload import Batch, workload

Times = npt.NDArray[np.float64]

UNCOUNTED = 3
"""Pairs at the beginning that do not count: buffers are allocated and files are opened in them."""


def measure(config: RunConfig, steps: int = 120, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the step times of ``config``'s model with and without the monitor, which samples every step.

    The store and TensorBoard are written to a temporary folder. ``steps`` counts the timed steps of each kind;
    ``ratio`` is the median watched over the median plain step time, ``ratio_low`` and ``ratio_high`` its 95 % interval
    (bootstrap over pairs). On a GPU each step is waited for.
    """
    device = torch.device(device)
    model = training.build(config, device).train()
    optimizer, data = training.optimizer(model, config), training.batches(config, device)
    schedule = Schedule(dense=0, every=1, rows=config.monitor.rows)
    order = np.random.default_rng(0).integers(2, size=UNCOUNTED + steps)
    seconds, own = np.zeros((2, UNCOUNTED + steps)), np.zeros(UNCOUNTED + steps)
    with (
        tempfile.TemporaryDirectory() as folder,
        watch(model, optimizer, dir=folder, name="overhead", schedule=schedule, console=False) as monitor,
    ):
        for pair, first in enumerate(order):
            before = monitor.seconds
            for plain in (first, 1 - first):
                with monitor.paused() if plain else nullcontext():
                    seconds[plain, pair] = _timed(config, model, optimizer, next(data), None if plain else monitor)
            own[pair] = monitor.seconds - before
    return _summary(config, device, seconds[:, UNCOUNTED:], float(np.median(own[UNCOUNTED:])))


def _timed(
    config: RunConfig, model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, monitor: Monitor | None
) -> float:
    """Take one optimizer step and return its seconds."""
    device = batch.inputs[0].device
    _wait(device)
    began = time.perf_counter()
    with training.autocast(config.training, device):
        loss = workload(config).loss(model, batch)
    torch.autograd.backward(loss)
    if config.training.clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
    optimizer.step()
    optimizer.zero_grad()
    if monitor is not None:
        monitor.log(loss=loss.detach())
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(config: RunConfig, device: torch.device, seconds: Times, own: float) -> dict[str, Any]:
    number = seconds.shape[1]
    drawn = np.random.default_rng(0).integers(number, size=(2000, number))
    medians = np.median(seconds[:, drawn], axis=2)
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    watched, plain = np.median(seconds, axis=1) * 1e3
    return {
        "config": config.name,
        "device": str(device),
        "steps": number,
        "milliseconds_with": float(watched),
        "milliseconds_without": float(plain),
        "ratio": float(watched / plain),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "self_measured": own * 1e3 / float(watched),
    }
