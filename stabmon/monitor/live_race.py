"""A race against softmax beside a watched training: two shadows of the model, one with softmax, on the user's batches.

Both start as copies of the model and its optimizer at its first training pass, and take every k-th batch at the user's
learning rate. They cost two training steps every k steps, and twice the memory of weights, gradients and optimizer
state; the model, its optimizer and all random state stay as they are.
"""

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from stabmon.distributed.shards import waits_for_others
from stabmon.failures import Failures
from stabmon.generators import same_generators, same_torch_generators
from stabmon.hooks.uncompiled import uncompiled
from stabmon.hooks.uncopied import Uncopied
from stabmon.kernels.softmax_twin import softmax_in_place

if TYPE_CHECKING:
    from stabmon.monitor.monitor import Monitor

NAMES = ("softmax_gap", "softmax_gap_low", "race_cost")
"""Numbers that a race logs."""
WAITS = (
    "a race is not for a model whose passes wait for other processes: one that fails in a single process would leave "
    "the training of the others waiting; give watch the module inside DistributedDataParallel, or race in one process"
)


class Race(NamedTuple):
    """Options of ``watch(race=...)``.

    every: steps of the training from one batch of the race to the next; at 10 the race takes 0.2 of a step's time.
    steps: batches after which it ends and its memory is free.
    loss: called with the output of the model, its arguments and its keyword arguments, returns the loss; by default the
        output's ``loss``, or the output where it is a single number.
    clip: norm at which the shadows' gradients are clipped; the user's clipping cannot be seen.
    """

    every: int = 10
    steps: int = 200
    loss: Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Tensor] | None = None
    clip: float | None = None


class _Side(NamedTuple):
    """A shadow with its optimizer; attention: the context in which it runs."""

    model: nn.Module
    optimizer: Optimizer
    attention: Callable[[], AbstractContextManager[None]]


class LiveRace:
    """The race beside the training of ``model``.

    monitor: counts the steps and takes the numbers of ``NAMES``.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        options: Race,
        *,
        monitor: "weakref.ref[Monitor]",
        failures: Failures,
    ) -> None:
        self._model, self._optimizer, self._options = model, optimizer, options
        self._monitor, self._failures = monitor, failures
        self._sides: tuple[_Side, ...] = ()
        self._differences: list[float] = []
        self._lows: list[float] = []
        self._last: int | None = None
        self._seconds, self._began = 0.0, time.perf_counter()
        self._shown: dict[str, float] = {}
        self._over = False
        self._handle: Any = None

    def put_on(self) -> None:
        """See the passes of the model."""
        if self._handle is None and not self._over:
            self._handle = self._model.register_forward_hook(_Passed(self), with_kwargs=True)

    def take_off(self) -> None:
        """See no further pass."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def end(self) -> None:
        """End the race and free its memory; what it found stays."""
        self._over, self._sides = True, ()

    @uncompiled
    def passed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take the batch of a training pass, where it is the race's turn, and log the newest gap."""
        monitor = self._monitor()
        if monitor is None or not (self._model.training and torch.is_grad_enabled()):
            return
        step = monitor.steps
        if not self._over and step != self._last and step % self._options.every == 0:
            self._last, began = step, time.perf_counter()
            try:
                self._take(args, kwargs)
            except Exception as error:  # the race is beside the training, which goes on
                self._failures.add(f"the race against softmax ended at step {step}", str(error))
                self.end()
            self._seconds += time.perf_counter() - began
            self._show()
        if self._shown:
            monitor.log(**self._shown)

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        with same_generators(), same_torch_generators(self._model):
            self._sides = self._sides or tuple(self._made())
        losses = [self._step(side, *tree_map(_detached, (args, dict(kwargs)))) for side in self._sides]
        if not self._differences and losses[0] == losses[1]:
            raise ValueError(
                "the model makes no call of stabmon.kernels.sigmoid_attention: its softmax twin is the same"
            )
        self._differences.append(losses[0] - losses[1])
        if len(self._differences) >= self._options.steps:
            self.end()

    def _made(self) -> Iterator[_Side]:
        """Yield both shadows; they keep no hook of the model's monitor."""
        if waits_for_others(self._model):  # it was wrapped or sharded after ``watch``
            raise ValueError(WAITS)
        self.take_off()
        try:
            for attention in (nullcontext, softmax_in_place):
                model, optimizer = deepcopy((self._model, self._optimizer))  # an optimizer's copy has none of its hooks
                model.zero_grad(set_to_none=True)
                yield _Side(model, optimizer, attention)
        finally:
            self.put_on()

    def _step(self, side: _Side, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float:
        """Train one shadow on a batch and return its loss; both draw the same random numbers."""
        for group, of_user in zip(side.optimizer.param_groups, self._optimizer.param_groups, strict=True):
            group["lr"] = of_user["lr"].clone() if isinstance(of_user["lr"], Tensor) else of_user["lr"]
        with same_generators(), same_torch_generators(self._model), side.attention():
            loss = self._loss(side.model(*args, **kwargs), args, kwargs)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if self._options.clip is not None:
            nn.utils.clip_grad_norm_(side.model.parameters(), self._options.clip)
        side.optimizer.step()
        side.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def _loss(self, output: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        if self._options.loss is not None:
            return self._options.loss(output, args, kwargs)
        found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", output)
        if not isinstance(found, Tensor) or found.numel() != 1:
            raise ValueError(
                f"the model returns a {type(output).__name__} without a loss; "
                "pass race=stabmon.Race(loss=lambda output, args, kwargs: ...)"
            )
        return found

    def _show(self) -> None:
        from stabmon.ab_test.gap import CONFIRMED, gap  # trials watch models, so their package imports this one

        found = gap(self._differences)
        if found is None:
            return
        self._lows = [*self._lows, found.low][-CONFIRMED:]
        low = min(self._lows) if len(self._lows) == CONFIRMED else float("nan")
        cost = self._seconds / max(time.perf_counter() - self._began - self._seconds, 1e-9)
        self._shown = dict(zip(NAMES, (found.mean, low, cost), strict=True))


class _Passed(Uncopied):
    """The forward hook of the model."""

    def __init__(self, race: LiveRace) -> None:
        self.race = weakref.ref(race)

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Let the race see the pass; one within a graph cannot be seen."""
        race = self.race()
        if race is not None and not torch.compiler.is_compiling():
            race.passed(args, kwargs)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
