"""What the monitor costs: one model trains on, in turns with and without the monitor, and step times are compared.

Turns of a few steps alternate, each kind first every other time, so that whatever else the machine does meets both.
Attaching, and the writer thread's last rows, stay outside the clock; within a turn the writer competes with the steps
as in a real training. The first two steps of each turn do not count: the first has no row before it to be written, and
during the second the writer opens its files.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stabmon.config import RunConfig
from stabmon.monitor import Monitor, watch
from stabmon.schedule import Schedule
from stabmon.workloads import training
from stabmon.workloads.workload import Batch, workload

Times = npt.NDArray[np.float64]

TURN = 7
"""Steps of a turn."""
UNCOUNTED = 2
"""Steps at the beginning of a turn that do not count."""


def measure(config: RunConfig, steps: int = 40, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the step times of ``config``'s model with and without the monitor, which samples every step.

    The store and TensorBoard are written to a temporary folder. ``steps`` counts the timed steps of each kind, rounded
    up to whole turns; ``ratio`` is the median watched over the median plain step time, ``ratio_low`` and ``ratio_high``
    its 95 % interval (bootstrap over turns). On a GPU each step is waited for.
    """
    device = torch.device(device)
    model = training.build(config, device).train()
    training_run = _Training(config, model, training.optimizer(model, config), training.batches(config, device), device)
    number = max(2, -(-steps // (TURN - UNCOUNTED)))
    seconds, own = np.zeros((2, number, TURN - UNCOUNTED)), np.zeros(number)
    with tempfile.TemporaryDirectory() as folder:
        training_run.turn(None)
        for index in range(number):
            for plain in (0, 1) if index % 2 else (1, 0):
                with nullcontext() if plain else training_run.watched(Path(folder), str(index)) as monitor:
                    seconds[plain, index] = training_run.turn(monitor)
                if monitor is not None:
                    own[index] = monitor.overhead
    return _summary(config, device, seconds, float(np.median(own)))


class _Training(NamedTuple):
    config: RunConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    data: Iterator[Batch]
    device: torch.device

    def watched(self, folder: Path, name: str) -> Monitor:
        schedule = Schedule(dense=0, every=1, rows=self.config.monitor.rows)
        return watch(self.model, self.optimizer, dir=folder, name=name, schedule=schedule, console=False)

    def turn(self, monitor: Monitor | None) -> Times:
        """Take ``TURN`` steps and return the seconds of those that count, [TURN - UNCOUNTED]."""
        seconds = np.zeros(TURN)
        for index, batch in enumerate([next(self.data) for _ in range(TURN)]):
            _wait(self.device)
            began = time.perf_counter()
            loss = _step(self.config, self.model, self.optimizer, batch)
            if monitor is not None:
                monitor.log(loss=loss)
            _wait(self.device)
            seconds[index] = time.perf_counter() - began
        return seconds[UNCOUNTED:]


def _step(config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    with training.autocast(config.training, batch.inputs[0].device):
        loss = workload(config).loss(model, batch)
    torch.autograd.backward(loss)
    if config.training.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(config: RunConfig, device: torch.device, seconds: Times, own: float) -> dict[str, Any]:
    number = seconds.shape[1]
    drawn = np.random.default_rng(0).integers(number, size=(1000, number))
    medians = np.median(seconds[:, drawn], axis=(2, 3))
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    watched, plain = np.median(seconds, axis=(1, 2)) * 1e3
    return {
        "config": config.name,
        "device": str(device),
        "steps": seconds[0].size,
        "milliseconds_with": float(watched),
        "milliseconds_without": float(plain),
        "ratio": float(watched / plain),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "self_measured": own,
    }
