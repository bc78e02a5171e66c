"""Training one run of the foreign matrix; its losses, samples and what preflight measured stay in its folder."""

import math
import shutil
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stabmon import Schedule, watch
from stabmon.evaluation.foreign import families
from stabmon.evaluation.foreign.setup import Setup
from stabmon.evaluation.recorded import STARTS, Starts, StoredPass
from stabmon.preflight_check import measure
from stabmon.records import Record
from stabmon.sinks import StoreSink

FILE = "ended.json"
"""Name of the file in a run's folder that says how it ended."""


class Ended(Record):
    """One training, without any judgement of stabmon's."""

    setup: Setup
    losses: tuple[float, ...]
    """Training loss of each step, nats."""
    frequencies: float
    """Loss of knowing nothing but how frequent each target is, nats."""
    seconds: float
    device: str


class ForeignJob(NamedTuple):
    """One training to be done in ``folder``."""

    setup: Setup
    folder: Path
    device: str


def record(job: ForeignJob) -> Ended:
    """Train a run; sigmoid with the monitor on, and keep what is judged in its folder."""
    shutil.rmtree(job.folder, ignore_errors=True)
    setup, device = job.setup, torch.device(job.device)
    model = families.build(setup).to(device)
    adam = AdamW(model.parameters(), lr=setup.rate, betas=(0.9, 0.95), weight_decay=0.1)
    began = time.perf_counter()
    losses = _loop(job, model, adam, device)
    ended = Ended(
        setup=setup,
        losses=tuple(losses),
        frequencies=families.frequencies(setup),
        seconds=time.perf_counter() - began,
        device=job.device,
    )
    job.folder.mkdir(parents=True, exist_ok=True)
    half = job.folder / f"{FILE}.part"
    half.write_text(ended.model_dump_json(), encoding="utf-8")
    half.replace(job.folder / FILE)
    return ended


def read(folder: Path) -> Ended | None:
    """Return how the run in ``folder`` ended, or None where it is not finished."""
    try:
        return Ended.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _loop(job: ForeignJob, model: nn.Module, adam: Optimizer, device: torch.device) -> list[float]:
    setup, losses = job.setup, list[Tensor]()
    schedule = LambdaLR(adam, lambda step: _factor(step, setup))
    watched = setup.attention == "sigmoid"
    config = {"learning_rate": setup.rate, "steps": setup.steps, "clip": setup.clip}
    monitor = None
    if watched:
        first = next(families.samples(setup)).inputs.to(device)
        start = StoredPass.of(*measure(model, first, config=config)[:3])
        monitor = watch(
            model,
            adam,
            dir=None,
            schedule=Schedule(dense=60, every=5),
            config=config,
            sinks=(StoreSink(job.folder),),
            console=False,
            trackers=False,
        )
    with nullcontext() if monitor is None else monitor:
        for inputs, targets in families.samples(setup):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = families.loss_of(model(inputs.to(device)), targets.to(device))
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if setup.clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), setup.clip)
            adam.step()
            schedule.step()
            adam.zero_grad()
            losses.append(loss.detach())
            if monitor is not None:
                monitor.log(loss=loss)
    if watched:
        (job.folder / STARTS).write_text(Starts(passes=(start,)).model_dump_json(), encoding="utf-8")
    return torch.stack(losses).float().tolist()


def _factor(step: int, setup: Setup) -> float:
    """Return the factor on the learning rate: a warm-up, then a cosine down to a tenth."""
    if step < setup.warmup:
        return (step + 1) / setup.warmup
    done = min(1.0, (step - setup.warmup) / max(1, setup.steps - setup.warmup))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * done))
