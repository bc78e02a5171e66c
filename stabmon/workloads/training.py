"""A real training loop over a ``RunConfig``, with the monitor attached or without it: the same bits either way."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stabmon.config import RunConfig, TrainingConfig
from stabmon.divergence import diverged
from stabmon.errors import ConfigError
from stabmon.findings import Finding
from stabmon.records import Record
from stabmon.terminal import json_text
from stabmon.workloads.intervention import Intervention
from stabmon.workloads.rate import rate
from stabmon.workloads.workload import Batch, workload

if TYPE_CHECKING:
    from stabmon.monitor import Monitor
    from stabmon.sinks import Sink

Progress = Callable[[int, float], None]
FINAL = 20
"""Steps whose mean training loss is called the final loss."""
_CUDA_REPORT = 10  # reading a loss makes the host wait for the device
_LOWER = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingResult(Record):
    """Outcome of a training."""

    name: str
    path: Path | None
    """The run's folder, or None where no files were written."""
    losses: list[float]
    """Training loss of each step, in ``unit``."""
    unit: str
    """Unit of the loss: "nats a byte", "nats an image", "nats a label"."""
    final_loss: float
    """Mean of the last 20 of them."""
    diverged: bool
    """True if the training ended worse than it began; see ``stabmon.divergence``."""
    validation_loss: float | None
    """Mean validation loss at the configured length after the training, or None where none is configured."""
    seconds: float
    """Duration of the loop."""
    findings: list[Finding]
    overhead: float | None
    """Share of step time that the monitor took, or None where it was not measured."""


def as_json(result: TrainingResult) -> str:
    """Return ``result`` as one JSON object, without the loss of every step."""
    return json_text(result.model_dump(exclude={"losses"}))


def build(config: RunConfig, device: str | torch.device = "cpu") -> nn.Module:
    """Return the model of ``config``; the seed alone decides its weights, and the global random state is left alone."""
    _check_memory(config, torch.device(device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.training.seed)
        return workload(config).build(config.model).to(device)


def _check_memory(config: RunConfig, device: torch.device) -> None:
    """Refuse a model whose weights alone do not fit: the system would end the process without a word.

    Raises:
        ConfigError: they take more than the device's memory.
    """
    model = config.model
    weights = 4 * model.layers * model.width**2  # of the attentions alone
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    elif device.type == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if 4 * weights > memory:
        raise ConfigError(
            f"{config.name} has {weights:,} weights or more, which take {4 * weights / 2**30:,.0f} GiB; {device} has "
            f"{memory / 2**30:,.0f} GiB: make model.width or model.layers smaller"
        )


def batches(config: RunConfig, device: str | torch.device = "cpu") -> Iterator[Batch]:
    """Yield training batches without end; workload, seed, batch and context alone decide them, and a bad one's step."""
    for step, batch in enumerate(workload(config).batches(config)):
        if step == config.training.bad_batch:
            batch = workload(config).corrupt(batch, torch.Generator().manual_seed(config.training.seed))
        yield batch.to(device)


def validate(config: RunConfig, model: nn.Module, length: int, device: str | torch.device = "cpu") -> float:
    """Return the mean validation loss of ``model``, in eval mode without gradients, on sequences of ``length``."""
    task, was = workload(config), model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(config.training, device):
            losses = [task.loss(model, batch.to(device)) for batch in task.validation(config, length)]
    finally:
        model.train(was)
    if not losses:
        raise ConfigError(f"training.evaluate_length: there is no data of length {length}; make it shorter")
    return torch.stack(losses).mean().item()


def autocast(training: TrainingConfig, device: str | torch.device) -> AbstractContextManager[object]:
    """Return the context in which ``training``'s precision computes on ``device``."""
    lower = _LOWER.get(training.precision)
    return nullcontext() if lower is None else torch.autocast(torch.device(device).type, lower)


def pick_device(wanted: str | None = None) -> str:
    """Return ``wanted``, or without it the GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device on this machine.
    """
    name = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "meta" or (device.type == "cpu" and device.index):
            raise RuntimeError("it holds no numbers" if device.type == "meta" else "there is one cpu, and no second")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
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
    intervention: Intervention | None = None,
) -> TrainingResult:
    """Train ``model`` (default: built from ``config``) and return its outcome.

    Args:
        config: what to train; on the CPU the same configuration gives the same bits, watched or not.
        model: trained in place.
        directory: folder of runs; None writes no files.
        name: name of the run; default the configuration's.
        device: where to train.
        progress: called with the number of steps done and the loss; every step on the CPU, one in ten on a GPU.
        watch: whether stabmon records the run.
        sinks: further sinks in addition to the store and TensorBoard.
        intervention: what is changed on the way.

    Raises:
        ConfigError: the workload's data set is missing; the message names the package to install.
        StoreError: the run's folder cannot be written, or holds a run already.
    """
    model = (build(config) if model is None else model).to(device).train()
    adam = optimizer(model, config)
    scaler = GradScaler(torch.device(device).type) if config.training.precision == "fp16" else None
    name, length = name or config.name, config.training.evaluate_length
    with _monitor(config, model, adam, scaler, directory, name, sinks) if watch else nullcontext() as monitor:
        began = time.perf_counter()
        losses = _loop(config, model, adam, scaler, torch.device(device), monitor, progress, intervention)
        seconds = time.perf_counter() - began
    last = losses[-FINAL:]
    final = sum(last) / len(last)
    return TrainingResult(
        name=name,
        path=None if monitor is None else monitor.path,
        losses=losses,
        unit=workload(config).UNIT,
        final_loss=final,
        diverged=diverged(losses, final),
        validation_loss=None if length is None else validate(config, model, length, device),
        seconds=seconds,
        findings=[] if monitor is None else list(monitor.findings),
        overhead=None if monitor is None else monitor.overhead,
    )


def _loop(
    config: RunConfig,
    model: nn.Module,
    adam: Optimizer,
    scaler: GradScaler | None,
    device: torch.device,
    monitor: "Monitor | None",
    progress: Progress | None,
    intervention: Intervention | None,
) -> list[float]:
    """Train for the configured steps and return the loss of each."""
    training = config.training
    schedule = LambdaLR(adam, partial(rate, training=training))
    task, losses = workload(config), list[Tensor]()
    for batch in islice(batches(config, device), training.steps):
        if intervention is not None and len(losses) == intervention.step:
            schedule, training = intervention.carry_out(model, adam), intervention.training
        with autocast(training, device):
            loss = task.loss(model, batch)
        stepped = _step(training, model, adam, scaler, loss)
        loss = loss.detach()
        if stepped:
            schedule.step()
        if monitor is not None:
            if not stepped and not loss.isfinite():
                monitor.skipped()
            monitor.log(loss=loss)
        losses.append(loss)
        if progress is not None and (device.type == "cpu" or len(losses) % _CUDA_REPORT == 0):
            progress(len(losses), loss.item())
    values: list[float] = torch.stack(losses).tolist()
    return values


def _step(training: TrainingConfig, model: nn.Module, adam: Optimizer, scaler: GradScaler | None, loss: Tensor) -> bool:
    """Take one optimizer step down from ``loss``; return whether it was taken, which only a scaler may refuse."""
    (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if training.clip is not None:
        if scaler is not None:
            scaler.unscale_(adam)
        nn.utils.clip_grad_norm_(model.parameters(), training.clip)
    if scaler is None:
        adam.step()
        taken = True
    else:
        taken = _scaled_step(scaler, adam)
    adam.zero_grad()
    return taken


def _scaled_step(scaler: GradScaler, adam: Optimizer) -> bool:
    before = scaler.get_scale()
    scaler.step(adam)
    scaler.update()
    return scaler.get_scale() >= before


def _monitor(
    config: RunConfig,
    model: nn.Module,
    adam: Optimizer,
    scaler: GradScaler | None,
    directory: str | Path | None,
    name: str,
    sinks: Sequence["Sink"],
) -> AbstractContextManager["Monitor"]:
    from stabmon import Schedule, watch

    return watch(
        model,
        adam,
        scaler=scaler,
        dir=directory,
        name=name,
        schedule=Schedule(**config.monitor.model_dump()),
        config=config.model_dump(mode="json"),
        sinks=sinks,
        console=False,
    )
