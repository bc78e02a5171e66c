"""The monitor of a training that a framework runs: the framework says when it begins, logs and ends; nothing raises."""

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from stabmon.errors import ArgumentError, StoreError
from stabmon.monitor import Monitor, watch
from stabmon.store import fresh_name

_log = logging.getLogger("stabmon")

GIVEN = frozenset({"model", "optimizer", "scaler", "resume", "first_step"})
"""Arguments of ``watch`` that the framework gives."""


class WatchedTraining:
    """One monitor at a time, for a framework's callback.

    A training that cannot be watched goes on without stabmon, and the reason is logged as an error.

    options: arguments of ``watch``; the framework gives model, optimizer, scaler and what concerns resuming.

    Raises:
        TypeError: ``watch`` has no such argument, or the framework gives it.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        known = inspect.signature(watch).parameters.keys() - GIVEN
        if wrong := sorted(options.keys() - known):
            raise TypeError(f"{', '.join(wrong)} cannot be given here; the options are {', '.join(sorted(known))}")
        self.options = dict(options)
        self.monitor: Monitor | None = None
        """Of the training that was begun last; closed once that has ended."""
        self.name: str | None = None
        """The run that was begun last, for a checkpoint."""
        self._goes_on, self._counts = False, False
        self._said: set[str] = set()

    def begin(
        self,
        model: nn.Module,
        optimizer: object = None,
        *,
        scaler: object = None,
        first_step: int = 0,
        resumed: str | None = None,
    ) -> None:
        """Watch ``model``; an earlier training that has not ended has failed.

        optimizer: one inside a wrapper, as Accelerate's, is taken out of it; of one that has no hooks of torch's,
            ``stepped`` counts the steps.
        resumed: the run that the checkpoint names; it goes on at ``first_step``.
        """
        self.end(failed=True)
        self.monitor = None
        if isinstance(inside := getattr(optimizer, "optimizer", None), Optimizer):
            scaler, optimizer = getattr(optimizer, "scaler", scaler), inside
        options = {"first_step": first_step, "scaler": scaler} | self.options
        if resumed is not None:
            options |= {"name": resumed, "resume": True}
        self._try(self._begin, _inner(model), optimizer, options)

    def log(self, values: Mapping[str, Any]) -> None:
        """Log the numbers among ``values`` whose names were announced."""
        wanted = self.options.get("log", ("loss",))
        numbers = {name: value for name, value in values.items() if name in wanted and _is_number(value)}
        if self.monitor is not None and self._goes_on and numbers:
            self._try(self.monitor.log, **numbers)

    def stepped(self) -> None:
        """Count an optimizer step where the optimizer does not say it itself."""
        if self.monitor is not None and self._goes_on and self._counts:
            self._try(self.monitor.step)

    def end(self, *, failed: bool = False) -> None:
        """Close the monitor."""
        if self.monitor is not None and self._goes_on:
            self._try(self.monitor.close, failed=failed)
        self._goes_on = False

    def saved(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: the run's name, and its steps so far."""
        return {"run": self.name} if self.monitor is None else {"run": self.name, "steps": self.monitor.steps}

    def _begin(self, model: nn.Module, optimizer: object, options: dict[str, Any]) -> None:
        hooked = optimizer if isinstance(optimizer, Optimizer) else None
        try:
            self.monitor = _watched(model, hooked, options)
        except (ArgumentError, AttributeError) as error:  # the latter of an optimizer without torch's tables of hooks
            if hooked is None:
                raise
            hooked, self.monitor = None, _watched(model, None, options)
            _log.warning("stabmon: %s. Steps are counted without the optimizer; its learning rate is missing.", error)
        self._goes_on, self._counts = True, hooked is None
        path = self.monitor.path
        self.name = None if path is None else path.name

    def _try(self, call: Callable[..., None], *given: Any, **named: Any) -> None:
        try:
            call(*given, **named)
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            if what not in self._said:
                self._said.add(what)
                _log.error("stabmon: %s. The training goes on; this is logged once.", what)


def _watched(model: nn.Module, optimizer: Optimizer | None, options: dict[str, Any]) -> Monitor:
    """Watch under the name that is asked for, or under that with a number where it cannot be written."""
    try:
        return watch(model, optimizer, **options)
    except StoreError as error:
        if options.get("name") is None or options.get("dir", "runs") is None:
            raise
        name = fresh_name(options.get("dir", "runs"), options["name"])
        _log.warning("stabmon: %s. The run is recorded as %s.", error, name)
        return watch(model, optimizer, **options | {"name": name, "resume": False})


def _inner(model: nn.Module) -> nn.Module:
    """Return the module inside a compiled one: it has not run yet, so hooks are compiled with it."""
    compiler = sys.modules.get("torch._dynamo")
    inner: nn.Module = model._orig_mod if compiler and isinstance(model, compiler.OptimizedModule) else model
    return inner


def _is_number(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)
