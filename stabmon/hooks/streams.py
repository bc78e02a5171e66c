"""Hooks that read one tensor at a module's boundary: the residual stream, a branch, a block's output, a gain."""

from typing import Any

from torch import Tensor, nn

from stabmon.discover.points import Point
from stabmon.hooks.hook import Hook, Turn
from stabmon.hooks.recording import Recording
from stabmon.stats import Slots


class StreamHook(Hook):
    """Adds the power of the tensor at ``point`` to ``raw``; a module called several times in a pass has a ``turn``."""

    def __init__(
        self, recording: Recording, name: str, slots: Slots, raw: str, point: Point, turn: Turn | None = None
    ) -> None:
        super().__init__(recording, name)
        self.slots, self.raw, self.point, self.turn = slots, raw, point, turn

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, *output: Any) -> None:
        """Run as a forward pre-hook (inputs are read) or as a forward hook (the output is)."""
        if (
            self.enabled
            and self.recording.counts(module)
            and (self.turn is None or self.turn.take() == self.point.call)
        ):
            given = output[0] if output else {"args": args, "kwargs": kwargs}
            self.recording.guard(self, self.add, self.point.read(given))

    def add(self, x: Tensor | None) -> None:
        """Add ``x``; a call that has no tensor there leaves its slots uncounted."""
        if x is not None:
            self.recording.writer.power(self.slots, self.raw, x)


class OutputHook(Hook):
    """The forward hook of a residual block: adds the power of its first output."""

    def __init__(self, recording: Recording, name: str, slots: Slots) -> None:
        super().__init__(recording, name)
        self.slots = slots

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Add this pass, if it counts."""
        if self.enabled and self.recording.counts(module):
            self.recording.guard(self, self.add, first_tensor(output))

    def add(self, x: Tensor | None) -> None:
        """Add ``x``, where there is one."""
        if x is not None:
            self.recording.writer.power(self.slots, "stream_out", x)


class GainHook(Hook):
    """The forward hook of an attention with a LayerScale on its branch: sets the mean absolute gain."""

    def __init__(self, recording: Recording, name: str, gain: Tensor, slots: Slots) -> None:
        super().__init__(recording, name)
        self.gain, self.slots = gain, slots

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Set it, if this pass counts."""
        if self.enabled and self.recording.counts(module):
            self.recording.guard(self, self.recording.writer.gain, self.slots, self.gain)


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating tensor in nested tuples, lists and mappings, or None."""
    if isinstance(value, Tensor):
        return value if value.is_floating_point() else None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    for element in inner:
        found = first_tensor(element)
        if found is not None:
            return found
    return None
