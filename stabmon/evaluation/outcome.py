"""Outcome of a run of the matrix, kept beside what was recorded of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

from stabmon.config import RunConfig
from stabmon.records import Record

FILE = "outcome.json"
"""Name of the file in a run's folder."""
WINDOW = 20
"""Steps whose mean loss is compared, at the end and on the way."""


class Outcome(Record):
    """One training, without any judgement of stabmon's."""

    model_config = ConfigDict(extra="ignore")  # earlier files hold ``diverged``, which follows from the losses

    name: str
    config: dict[str, Any]
    """The configuration it was trained with."""
    losses: list[float]
    """Training loss of each step, nats."""
    validation_loss: float | None
    """Loss of the validation pass after the training, where the configuration asks for one."""
    seconds: float
    device: str

    @property
    def run_config(self) -> RunConfig:
        """The configuration as a record."""
        return RunConfig.model_validate(self.config)

    @property
    def final_loss(self) -> float:
        """Mean training loss of the last ``WINDOW`` steps."""
        last = self.losses[-WINDOW:]
        return sum(last) / len(last)

    @property
    def seed(self) -> int:
        """The seed, which decides its data."""
        return self.run_config.training.seed

    @property
    def finite(self) -> bool:
        """True if every loss is finite."""
        return all(math.isfinite(loss) for loss in self.losses)

    @property
    def group(self) -> str:
        """Group of runs that it may be compared with: the same workload, size, length of training and learning rate."""
        config = self.run_config
        model, training = config.model, config.training
        size = f"{model.layers}x{model.width}x{model.heads} n={model.context}"
        return f"{config.workload} {size} {training.steps}x{training.batch} lr={training.learning_rate:g}"


def smooth(losses: list[float]) -> npt.NDArray[np.float64]:
    """Return the mean of the last ``WINDOW`` losses at each step, NaN before there are as many."""
    values = np.asarray(losses, dtype=np.float64)
    found = np.full(len(values), np.nan)
    if len(values) >= WINDOW:
        found[WINDOW - 1 :] = np.convolve(values, np.ones(WINDOW) / WINDOW, mode="valid")
    return found


def write(outcome: Outcome, folder: Path) -> None:
    """Put ``outcome`` into ``folder``, whole or not at all: its file says that the run is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f"{FILE}.part"
    half.write_text(outcome.model_dump_json())
    half.replace(folder / FILE)


def read(folder: Path) -> Outcome | None:
    """Return the outcome in ``folder``, or None where that run is not finished."""
    try:
        return Outcome.model_validate_json((folder / FILE).read_text())
    except FileNotFoundError:
        return None
