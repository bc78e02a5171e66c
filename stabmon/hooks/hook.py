"""The base of every hook on a module, and the turn of a module that is called several times in a pass."""

from typing import Any

import torch
from torch import nn

from stabmon.hooks.recording import Guarded, Recording, is_transformed
from stabmon.hooks.uncompiled import uncompiled
from stabmon.hooks.uncopied import Uncopied


class Hook(Uncopied, Guarded):
    """A hook that can be copied and pickled with its model without taking the monitor along."""

    def __init__(self, recording: Recording, name: str) -> None:
        super().__init__(name)
        self.recording = recording

    def __init_subclass__(cls) -> None:
        """Keep the hook from being a graph of its own where it is on a module that is compiled in place."""
        call = vars(cls).get("__call__")
        if call is not None:
            uncompiled(call)


class Turn:
    """Number of calls that were seen in this pass; set back where the next pass begins."""

    def __init__(self) -> None:
        self.taken = 0

    def take(self) -> int:
        """Return the number of this call, from 0 on."""
        self.taken += 1
        return self.taken - 1


class PassHook(Hook):
    """The forward pre-hook of the model: sets turns back, also after a pass that an exception ended."""

    def __init__(self, recording: Recording, turns: list[Turn]) -> None:
        super().__init__(recording, "the beginning of a pass")
        self.turns = turns

    def __call__(self, *_: object) -> None:
        """Begin a pass."""
        for turn in self.turns:
            turn.taken = 0


class BeginHook(Hook):
    """The forward pre-hook of the whole model: notes that a training pass begins."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording, "the beginning of a step")

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Note the pass, if it is one of the training."""
        if not torch.is_grad_enabled() or not (module.training or self.recording.in_eval):
            return
        if torch.compiler.is_compiling():
            self.recording.begun = True
        elif not is_transformed():
            self.recording.in_eval = not module.training
            self.recording.begin()
