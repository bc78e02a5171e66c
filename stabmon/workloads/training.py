"""A real training loop over a ``RunConfig``, with the monitor attached or without it: the same bits either way."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stabmon.config import RunConfig, TrainingConfig
from stabmon.errors import ConfigError
from stabmon.records import Finding, Record
from stabmon.workloads.language import ByteLanguageModel, next_byte_loss, windows
from stabmon.workloads.text import standard_library

if TYPE_CHECKING:
    from stabmon.monitor import Monitor
    from stabmon.sinks import Sink

Progress = Callable[[int, float], None]
FINAL = 20
"""Steps whose mean training loss is called the final loss."""
_CUDA_REPORT = 10  # reading a loss makes the host wait for the device


class TrainingResult(Record):
    """How a training ended."""

    name: str
    path: Path | None
    """The run's folder, or None where no files were written."""
    losses: list[float]
    """Training loss of each step, in nats a byte."""
    final_loss: float
    """Mean of the last 20 of them."""
    seconds: float
    """Duration of the loop."""
    findings: list[Finding]
    overhead: float | None
    """Share of step time that the monitor took, or None where it was not measured."""


def as_json(result: TrainingResult) -> str:
    """Return ``result`` as one JSON object, without the loss of every step."""
    return result.model_dump_json(indent=2, exclude={"losses"})


def build(config: RunConfig, device: str | torch.device = "cpu") -> nn.Module:
    """Return the model of ``config``; the seed alone decides its weights, and the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.training.seed)
        return ByteLanguageModel(config.model).to(device)


def batches(config: RunConfig, device: str | torch.device = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and targets [batch, context] without end; seed, batch and context alone decide them."""
    generator = torch.Generator().manual_seed(config.training.seed)
    text = standard_library().train
    while True:
        inputs, targets = windows(text, config.training.batch, config.model.context, generator)
        yield inputs.to(device), targets.to(device)


def pick_device(wanted: str | None = None) -> str:
    """Return ``wanted``, or without it the GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device on this machine.
    """
    name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}; try cpu") from error
    return name


def optimizer(model: nn.Module, config: RunConfig) -> Optimizer:
    """Return AdamW with betas (.9, .95); only matrices decay."""
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=config.training.learning_rate, betas=(0.9, 0.95))


def rate(step: int, training: TrainingConfig) -> float:
    """Return the learning rate at ``step`` (from 0) over its peak: linear warm-up, then a cosine down to 0.1."""
    if step < training.warmup:
        return (step + 1) / training.warmup
    done = (step - training.warmup) / max(1, training.steps - 1 - training.warmup)
    return 0.55 + 0.45 * math.cos(math.pi * min(1.0, done))


def train(
    config: RunConfig,
    *,
    model: nn.Module | None = None,
    directory: str | Path | None = None,
    name: str | None = None,
    device: str | torch.device = "cpu",
    progress: Progress | None = None,
    watch: bool = True,
    sinks: Sequence["Sink"] = (),
) -> TrainingResult:
    """Train ``model`` (default: built from ``config``) and return how it went.

    Args:
        config: what to train; on the CPU the same configuration gives the same bits, watched or not.
        model: trained in place.
        directory: folder of runs; None writes no files.
        name: name of the run; default the configuration's.
        device: where to train.
        progress: called with the number of steps done and the loss; every step on the CPU, one in ten on a GPU.
        watch: whether stabmon records the run.
        sinks: further sinks, beside the store and TensorBoard.

    Raises:
        ConfigError: this Python ships no source files to read.
        StoreError: the run's folder cannot be written, or holds a run already.
    """
    model = (build(config) if model is None else model).to(device).train()
    adam = optimizer(model, config)
    name = name or config.name
    with _monitor(config, model, adam, directory, name, sinks) if watch else nullcontext() as monitor:
        began = time.perf_counter()
        losses = _loop(config, model, adam, torch.device(device), monitor, progress)
        seconds = time.perf_counter() - began
    last = losses[-FINAL:]
    return TrainingResult(
        name=name,
        path=None if monitor is None else monitor.path,
        losses=losses,
        final_loss=sum(last) / len(last),
        seconds=seconds,
        findings=[] if monitor is None else list(monitor.findings),
        overhead=None if monitor is None else monitor.overhead,
    )


def _loop(
    config: RunConfig,
    model: nn.Module,
    adam: Optimizer,
    device: torch.device,
    monitor: "Monitor | None",
    progress: Progress | None,
) -> list[float]:
    """Train for the configured steps and return the loss of each."""
    schedule = LambdaLR(adam, partial(rate, training=config.training))
    losses: list[Tensor] = []
    for inputs, targets in islice(batches(config, device), config.training.steps):
        loss = _step(config.training, model, adam, inputs, targets)
        schedule.step()
        if monitor is not None:
            monitor.log(loss=loss)
        losses.append(loss)
        if progress is not None and (device.type == "cpu" or len(losses) % _CUDA_REPORT == 0):
            progress(len(losses), loss.item())
    values: list[float] = torch.stack(losses).tolist()
    return values


def _step(training: TrainingConfig, model: nn.Module, adam: Optimizer, inputs: Tensor, targets: Tensor) -> Tensor:
    """Take one optimizer step and return the loss, detached."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=training.precision == "bf16"):
        loss = next_byte_loss(model(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if training.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    adam.step()
    adam.zero_grad()
    return loss.detach()


def _monitor(
    config: RunConfig,
    model: nn.Module,
    adam: Optimizer,
    directory: str | Path | None,
    name: str,
    sinks: Sequence["Sink"],
) -> AbstractContextManager["Monitor"]:
    from stabmon import Schedule, watch

    return watch(
        model,
        adam,
        dir=directory,
        name=name,
        schedule=Schedule(**config.monitor.model_dump()),
        config=config.model_dump(mode="json"),
        sinks=sinks,
        console=False,
    )
