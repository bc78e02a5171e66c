"""The base of every hook on a module, and the turn of a module that is called several times in a pass."""

from typing import Any

from stabmon.hooks.recording import Guarded, Recording
from stabmon.hooks.uncompiled import uncompiled


class Inert:
    """The form of a hook in a copied or unpickled model: the copy is not watched."""

    def __call__(self, *_: object) -> None:
        """Do nothing."""


class Hook(Guarded):
    """A hook that can be copied and pickled with its model without taking the monitor along."""

    def __init__(self, recording: Recording, name: str) -> None:
        super().__init__(name)
        self.recording = recording

    def __init_subclass__(cls) -> None:
        """Keep the hook from being a graph of its own where it is on a module that is compiled in place."""
        call = vars(cls).get("__call__")
        if call is not None:
            uncompiled(call)

    def __deepcopy__(self, memo: dict[int, Any]) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return (Inert, ())


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
