"""The callback that watches what a ``Trainer`` of ``lightning`` or ``pytorch_lightning`` trains."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from stabmon.integrations.watched_training import WatchedTraining
from stabmon.monitor import Monitor

_PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}
"""Each has classes of its own, and its Trainer takes only its own callbacks."""
_CALLBACKS = tuple(import_module(module).Callback for package, module in _PACKAGES.items() if find_spec(package))


class StabmonCallback(*_CALLBACKS):  # type: ignore[misc]
    """Watches the module of a ``Trainer``: ``Trainer(callbacks=[StabmonCallback()])``.

    Steps are those of the optimizer; of several optimizers, those that ``trainer.global_step`` counts. The loss is that
    which ``training_step`` returns; other numbers that it returns in a dict are recorded where ``log`` names them. With
    a checkpoint of the Trainer a training goes on in its run. A training that cannot be watched goes on without, and
    the log says why.

    options: those of ``stabmon.watch``: ``dir``, ``name``, ``schedule``, ``log``, ``limits`` and so on.
    """

    def __init__(self, **options: Any) -> None:
        self._training = WatchedTraining(options)
        self._saved: dict[str, Any] = {}
        self._steps = 0

    @property
    def monitor(self) -> Monitor | None:
        """The monitor of the latest training, closed where that has ended; None where none is watched."""
        return self._training.monitor

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Watch the module."""
        optimizers, saved = trainer.optimizers, self._saved if trainer.global_step else {}
        self._steps = trainer.global_step
        self._training.begin(
            pl_module,
            optimizers[0] if len(optimizers) == 1 else None,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            first_step=saved.get("steps", trainer.global_step),
            resumed=saved.get("run"),
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the loss, and count the steps of several optimizers."""
        if trainer.global_step > self._steps:
            self._training.stepped()
        self._steps = trainer.global_step
        values = dict(outputs) if isinstance(outputs, Mapping) else {"loss": outputs}
        if trainer.accumulate_grad_batches > 1 and isinstance(loss := values.get("loss"), Tensor):
            values["loss"] = loss * trainer.accumulate_grad_batches  # Lightning has divided it
        self._training.log(values)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run."""
        self._training.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the run as failed."""
        self._training.end(failed=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the run's name and its steps, for a checkpoint."""
        return self._training.saved()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next training go on with the run of the checkpoint."""
        self._saved = state_dict
