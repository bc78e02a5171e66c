"""The callback that watches what a Transformers ``Trainer`` trains."""

from typing import Any

from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from stabmon.integrations.watched_training import WatchedTraining
from stabmon.monitor import Monitor


class StabmonCallback(TrainerCallback, ExportableState):
    """Watches the model of a ``Trainer``: ``Trainer(..., callbacks=[StabmonCallback()])``.

    Steps are those of the optimizer. The loss is the mean that the Trainer logs every ``logging_steps``; other numbers
    that it logs are recorded where ``log`` names them: ``StabmonCallback(log=("loss", "eval_loss"))``. A training that
    is resumed from a checkpoint goes on in the run that the checkpoint names. A training that cannot be watched goes on
    without, and the log says why.

    options: those of ``stabmon.watch``: ``dir``, ``name``, ``schedule``, ``log``, ``limits`` and so on.
    """

    def __init__(self, **options: Any) -> None:
        self._training = WatchedTraining(options)

    @property
    def monitor(self) -> Monitor | None:
        """The monitor of the latest training, closed where that has ended; None where none is watched."""
        return self._training.monitor

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: nn.Module, optimizer: Any = None, **kwargs: Any
    ) -> None:
        """Watch the model, before its first pass."""
        saved = (state.stateful_callbacks or {}).get(type(self).__name__) if state.global_step else None
        self._training.begin(
            model,
            optimizer,
            first_step=state.global_step,
            resumed=saved["attributes"]["run"] if isinstance(saved, dict) else None,
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step where the optimizer has no hooks."""
        self._training.stepped()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Record the loss."""
        self._training.log(logs or {})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the run."""
        self._training.end()

    def state(self) -> dict[str, Any]:
        """Return the run's name, for a checkpoint."""
        plain = {name: value for name, value in self._training.options.items() if isinstance(value, str | int | None)}
        return {"args": plain, "attributes": {"run": self.run}}

    @property
    def run(self) -> str | None:
        """Name of the run that was begun last."""
        return self._training.name

    @run.setter
    def run(self, name: str | None) -> None:
        self._training.name = name
