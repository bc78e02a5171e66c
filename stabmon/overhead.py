"""What the monitor costs: two copies of one model take turns, one watched and one not, and step times are compared.

Turns of a few steps alternate, each kind first every other time, so that whatever else the machine does meets both.
A watched turn ends before its last row is written: the writer thread finishes outside the clock, and within a turn it
competes with the steps as in a real training.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stabmon.config import RunConfig
from stabmon.monitor import Monitor, watch
from stabmon.schedule import Schedule
from stabmon.workloads import training
from stabmon.workloads.language import next_byte_loss

TURN = 4
"""Steps of a turn."""
WARM_UP = 4
"""Steps before the clock runs."""


def measure(config: RunConfig, steps: int = 40, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Return the step times of ``config``'s model with and without the monitor, which samples every step.

    The store and TensorBoard are written to a temporary folder. ``steps`` counts the steps of each copy; ``ratio`` is
    the median over pairs of turns of watched over plain step time, ``ratio_low`` and ``ratio_high`` are the 95 %
    interval of that median (bootstrap).
    """
    device = torch.device(device)
    watched, plain = (training.build(config, device).train() for _ in range(2))
    optimizers = [training.optimizer(model, config) for model in (watched, plain)]
    schedule = Schedule(dense=0, every=1, rows=config.monitor.rows)
    with (
        tempfile.TemporaryDirectory() as folder,
        watch(watched, optimizers[0], dir=Path(folder), name="overhead", schedule=schedule, console=False) as monitor,
    ):
        turns = [
            _turn(config, model, optimizer, device, seen)
            for model, optimizer, seen in zip((watched, plain), optimizers, (monitor, None), strict=True)
        ]
        for turn in turns:
            turn(WARM_UP)
        pairs = _pairs(turns, max(2, steps // TURN), monitor)
        own = monitor.overhead
    return _summary(config, device, pairs, own)


def _pairs(turns: list[Callable[[int], float]], number: int, monitor: Monitor) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return seconds a step, [number, 2]: watched and plain."""
    seconds = np.zeros((number, 2))
    for pair in range(number):
        for which in (0, 1) if pair % 2 else (1, 0):
            seconds[pair, which] = turns[which](TURN)
            monitor.flush()
    return seconds


def _turn(
    config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device, monitor: Monitor | None
) -> Callable[[int], float]:
    data = training.batches(config, device)

    def run(steps: int) -> float:
        batches = [next(data) for _ in range(steps)]
        _wait(device)
        began = time.perf_counter()
        for inputs, targets in batches:
            loss = _step(config, model, optimizer, inputs, targets)
            if monitor is not None:
                monitor.log(loss=loss)
        _wait(device)
        return (time.perf_counter() - began) / steps

    return run


def _step(
    config: RunConfig, model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor
) -> Tensor:
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=config.training.precision == "bf16"):
        loss = next_byte_loss(model(inputs), targets)
    torch.autograd.backward(loss)
    if config.training.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.training.clip)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _summary(
    config: RunConfig, device: torch.device, pairs: np.ndarray[Any, np.dtype[np.float64]], own: float | None
) -> dict[str, Any]:
    ratios = pairs[:, 0] / pairs[:, 1]
    draws = np.random.default_rng(0).choice(ratios, (1000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    with_, without = np.median(pairs, axis=0) * 1e3
    return {
        "config": config.name,
        "device": str(device),
        "steps": len(ratios) * TURN,
        "milliseconds_with": float(with_),
        "milliseconds_without": float(without),
        "ratio": float(np.median(ratios)),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "self_measured": own,
    }
