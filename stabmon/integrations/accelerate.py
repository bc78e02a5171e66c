"""The tracker ``Accelerator(log_with="stabmon")``; importing this module registers it."""

import re
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, register_tracker_class
from torch import nn

from stabmon.errors import ArgumentError
from stabmon.integrations.watched_training import WatchedTraining
from stabmon.monitor import Monitor


class StabmonTracker(GeneralTracker):
    """Records what ``accelerator.log`` is given under the names in ``log``, and closes the monitor at the end.

    ``watch`` begins the run, ``accelerator.end_training()`` ends it. Steps are those of the optimizer, whatever step
    ``accelerator.log`` is given. With ``accelerator.register_for_checkpointing(tracker_of(accelerator))`` a training
    goes on in its run, where ``watch`` comes after ``load_state``.

    project_name: the run's name; one that is taken gets a number.
    """

    name = "stabmon"
    requires_logging_directory = False

    def __init__(self, project_name: str) -> None:
        super().__init__()
        self._options: dict[str, Any] = {"name": re.sub(r"[^\w.-]|^[.-]", "_", project_name) or "run"}
        self._training: WatchedTraining | None = None
        self._saved: dict[str, Any] = {}

    @property
    def tracker(self) -> Monitor | None:
        """The monitor, once ``watch`` was called."""
        return None if self._training is None else self._training.monitor

    def begin(self, model: nn.Module, optimizer: Any, options: dict[str, Any]) -> None:
        """Watch a prepared model; ``watch`` calls this."""
        self.finish()
        self._training = WatchedTraining(self._options | options)
        saved = self._saved
        self._training.begin(model, optimizer, first_step=saved.get("steps", 0), resumed=saved.get("run"))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Keep the configuration with the run."""
        self._options["config"] = values

    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Record the numbers whose names were announced."""
        if self._training is not None:
            self._training.log(values)

    def finish(self) -> None:
        """End the run."""
        if self._training is not None:
            self._training.end()

    def state_dict(self) -> dict[str, Any]:
        """Return the run's name and its steps, for a checkpoint."""
        return self._saved if self._training is None else self._training.saved()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next ``watch`` go on with the run of a checkpoint."""
        self._saved = state


def watch(accelerator: Accelerator, model: nn.Module, optimizer: Any = None, **options: Any) -> Monitor | None:
    """Watch a prepared model from now on; return its monitor, or None where that fails: the log says why.

    Call this in every process, after ``prepare`` and ``init_trackers``, and before the model's first pass.

    Args:
        accelerator: one with ``log_with="stabmon"``, alone or in a list.
        model: the prepared model.
        optimizer: the prepared optimizer; without it, call ``step()`` of the monitor after each step.
        options: those of ``stabmon.watch``: ``dir``, ``schedule``, ``log``, ``limits`` and so on.

    Raises:
        ArgumentError: the accelerator has no tracker of stabmon.
        TypeError: ``stabmon.watch`` has no such option.
    """
    tracker = tracker_of(accelerator)
    tracker.begin(model, optimizer, options)
    return tracker.tracker


def tracker_of(accelerator: Accelerator) -> StabmonTracker:
    """Return the tracker of ``accelerator``; ``init_trackers`` makes that of the main process, this the others'.

    Raises:
        ArgumentError: it has none.
    """
    tracker = next((one for one in accelerator.trackers if isinstance(one, StabmonTracker)), None)
    if tracker is None and not accelerator.is_main_process and StabmonTracker.name in accelerator.log_with:
        tracker = StabmonTracker("run")
        accelerator.trackers.append(tracker)
    if tracker is None:
        raise ArgumentError(
            'this Accelerator has no tracker of stabmon: pass log_with="stabmon", and call init_trackers before watch'
        )
    return tracker


register_tracker_class(StabmonTracker)
