"""Step times of all contenders in one run, and what one step of each does."""

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from stabmon.overhead import device
from stabmon.overhead.contenders import Contender, Training, contenders
from stabmon.overhead.task import Task

Times = npt.NDArray[np.float64]

WARM = 3
"""First steps of each contender that are not timed: graphs are compiled, buffers allocated and files opened in them."""
WINDOW = 10
"""Rounds that are summed before medians are taken: the default schedule records one step in them."""


def measure(
    task: Task, steps: int = 120, *, compiled: bool = False, rivals: Sequence[Contender] | None = None
) -> dict[str, Any]:
    """Return what each of ``rivals`` (all that this machine has) costs in a step of ``task``.

    ``steps`` timed steps of each, rounded up to whole windows. ``ratio`` is the median over windows of a contender's
    time over that of the plain training in the same window, ``ratio_low`` and ``ratio_high`` its 95 % interval
    (bootstrap over windows). On a GPU each step is waited for. ``synchronisations``, ``memory`` (MiB) and ``launches``
    are those of one step beyond the plain training's.
    """
    rivals = contenders(compiled=compiled) if rivals is None else rivals
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        _warm(task)
        trainings, held = [], []
        for rival in rivals:
            before = _allocated(task)
            trainings.append(Training(rival, task, folder, stack, compiled=compiled))
            for _ in range(WARM):
                trainings[-1].step()
            held.append(_allocated(task) - before)
        seconds = _rounds(trainings, -(-steps // WINDOW) * WINDOW)
        rows = [{"contender": rival.name} | _ratio(one, seconds[0]) for rival, one in zip(rivals, seconds, strict=True)]
        _look(task, rivals, trainings, held, rows)
    return {
        "task": task.name,
        "device": str(task.device),
        "compiled": compiled,
        "steps": seconds.shape[1],
        "rows": rows,
    }


def _warm(task: Task) -> None:
    """Let libraries allocate what they keep, so that no contender is charged for it."""
    model = task.model().train()
    task.step(model, task.optimizer(model), next(task.batches()))


def _allocated(task: Task) -> float:
    return device.allocated(task.device) if task.device.type == "cuda" else 0.0


def _rounds(trainings: list[Training], number: int) -> Times:
    """Return the seconds of each training's steps, [trainings, number]."""
    order, seconds = np.random.default_rng(0), np.zeros((len(trainings), number))
    for index in range(number):
        for turn in order.permutation(len(trainings)):
            began = time.perf_counter()
            trainings[turn].step()
            seconds[turn, index] = time.perf_counter() - began
    return seconds


def _ratio(seconds: Times, plain: Times) -> dict[str, Any]:
    own, other = (one.reshape(-1, WINDOW).sum(1) for one in (seconds, plain))
    ratios = own / other
    drawn = np.random.default_rng(0).integers(len(ratios), size=(2000, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), [0.025, 0.975])
    return {
        "milliseconds": float(np.median(own)) / WINDOW * 1e3,
        "ratio": float(np.median(ratios)),
        "ratio_low": float(low),
        "ratio_high": float(high),
    }


def _look(
    task: Task, rivals: Sequence[Contender], trainings: list[Training], held: list[float], rows: list[dict[str, Any]]
) -> None:
    """Add to ``rows`` what one step of each contender does more than one of the first."""
    cuda, plain = task.device.type == "cuda", None
    for rival, training, kept, row in zip(rivals, trainings, held, rows, strict=True):
        if not rival.comparable:
            continue
        waits = device.synchronisations(training.step) if cuda else None
        memory = kept + device.peak(training.step, task.device) if cuda else None
        launched = device.launches(training.step, task.device)
        if plain is None:
            plain = waits, memory, launched
        row["synchronisations"] = None if waits is None or plain[0] is None else waits - plain[0]
        row["memory"] = None if memory is None or plain[1] is None else memory - plain[1]
        row["launches"] = launched.number.total() - plain[2].number.total()
        row["device_microseconds"] = launched.microseconds.total() - plain[2].microseconds.total() if cuda else None
        row["launched"] = {
            name: [number, launched.microseconds[name] - plain[2].microseconds[name]]
            for name, number in (launched.number - plain[2].number).most_common()
        }
