"""Training one run of the matrix: what preflight measures, what the monitor records, and how it ends."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import nn

from stabmon.config import RunConfig
from stabmon.evaluation import outcome as outcomes
from stabmon.evaluation.outcome import Outcome
from stabmon.evaluation.recorded import STARTS, Starts, StoredPass
from stabmon.preflight_check import measure
from stabmon.sinks import StoreSink
from stabmon.workloads import training
from stabmon.workloads.intervention import Intervention
from stabmon.workloads.training import TrainingResult
from stabmon.workloads.workload import workload


class Job(NamedTuple):
    """One training to be done; ``folder`` says that it is, once it holds an outcome."""

    config: RunConfig
    folder: Path
    device: str


def record(job: Job) -> Outcome:
    """Train the run with the monitor on, and keep series, starts and outcome in its folder."""
    model = training.build(job.config, job.device)
    return train_recorded(job, Starts(passes=tuple(_starts(job.config, model, job.device))), model)


def train_recorded(job: Job, starts: Starts, model: nn.Module | None = None) -> Outcome:
    """Train the run with the monitor on, and keep series, ``starts`` and outcome in its folder."""
    shutil.rmtree(job.folder, ignore_errors=True)
    result = training.train(job.config, model=model, device=job.device, sinks=(StoreSink(job.folder),))
    (job.folder / STARTS).write_text(starts.model_dump_json())
    return _keep(job, result)


def retrain(job: Job, intervention: Intervention | None = None) -> Outcome:
    """Train a run with a fix, without the monitor, and keep its outcome alone."""
    return _keep(job, training.train(job.config, device=job.device, watch=False, intervention=intervention))


def _keep(job: Job, result: TrainingResult) -> Outcome:
    found = Outcome(
        name=job.config.name,
        config=job.config.model_dump(mode="json"),
        losses=result.losses,
        validation_loss=result.validation_loss,
        seconds=result.seconds,
        device=job.device,
    )
    outcomes.write(found, job.folder)
    return found


def _starts(config: RunConfig, model: nn.Module, device: str) -> Iterator[StoredPass]:
    known = config.model_dump(mode="json")
    first = next(iter(training.batches(config, device)))
    yield StoredPass.of(*measure(model, first.inputs, config=known)[:3])
    length = config.training.evaluate_length
    if length is not None and length != config.model.context:
        longer = next(workload(config).validation(config, length)).to(device)
        yield StoredPass.of(*measure(model, longer.inputs, config=known)[:3])
