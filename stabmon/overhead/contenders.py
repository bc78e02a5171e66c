"""The ways of watching a training that are compared, each with a model, an optimizer and batches of its own."""

import importlib.util
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stabmon.monitor import watch
from stabmon.nn.self_attention import SelfAttention
from stabmon.overhead.task import Task
from stabmon.schedule import Schedule

After = Callable[[Tensor], None]
"""Called with the loss after each step."""
Attach = Callable[[nn.Module, Optimizer, str, ExitStack], After]
"""Begins to watch a model; files go to a folder, and the stack ends it."""


class Contender(NamedTuple):
    """One way of watching.

    comparable: whether each of its steps is like the others, so that one can be looked at by itself.
    """

    name: str
    attach: Attach
    comparable: bool = True


class Training:
    """A contender's own training, ready to take steps."""

    def __init__(self, contender: Contender, task: Task, folder: str, stack: ExitStack, *, compiled: bool) -> None:
        self._task = task
        model = task.model().train()
        self._optimizer = task.optimizer(model)
        self._after = contender.attach(model, self._optimizer, folder, stack)
        self._model: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]  # a module
        self._batches = task.batches()

    def step(self) -> None:
        """Take one step and wait for the device."""
        self._after(self._task.step(self._model, self._optimizer, next(self._batches)))
        if self._task.device.type == "cuda":
            torch.cuda.synchronize(self._task.device)


def contenders(*, compiled: bool = False) -> list[Contender]:
    """Return those that this machine has; the first is without any monitor.

    The others' hooks break the graph of a compiled model at each layer, beyond what torch compiles at all.
    """
    found = [
        Contender("plain", _nothing),
        Contender("stabmon, default schedule", _stabmon(Schedule(dense=0)), comparable=False),
        Contender("stabmon, every step", _stabmon(Schedule(dense=0, every=1))),
    ]
    if compiled:
        return found
    found.append(Contender("hook with .item()", _items))
    if importlib.util.find_spec("wandb") is not None:
        found.append(Contender("wandb.watch, every step", _wandb))
    return found


def _nothing(model: nn.Module, optimizer: Optimizer, folder: str, stack: ExitStack) -> After:
    return lambda loss: None


def _stabmon(schedule: Schedule) -> Attach:
    def attach(model: nn.Module, optimizer: Optimizer, folder: str, stack: ExitStack) -> After:
        name = f"every-{schedule.every}"
        monitor = watch(model, optimizer, dir=folder, name=name, schedule=schedule, console=False, trackers=False)
        stack.enter_context(monitor)
        return lambda loss: monitor.log(loss=loss)

    return attach


def _items(model: nn.Module, optimizer: Optimizer, folder: str, stack: ExitStack) -> After:
    """Read the norm of each attention's output on the host, as a hook written by hand would."""
    norms: dict[str, float] = {}

    def hook(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def read(module: nn.Module, args: object, output: Tensor) -> None:
            norms[name] = output.detach().norm().item()

        return read

    for name, module in model.named_modules():
        if isinstance(module, SelfAttention):
            module.register_forward_hook(hook(name))
    return lambda loss: None


def _wandb(model: nn.Module, optimizer: Optimizer, folder: str, stack: ExitStack) -> After:
    """Histograms of all gradients, offline: what ``wandb.watch`` does where nothing else is asked for."""
    import wandb

    run = stack.enter_context(
        wandb.init(mode="offline", dir=folder, project="overhead", settings=wandb.Settings(silent=True))
    )
    run.watch(model, log="gradients", log_freq=1)
    return lambda loss: run.log({"loss": loss})
