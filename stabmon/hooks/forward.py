"""Forward hooks: each is a gate (does this pass count?) in front of a few operations on the device buffer."""

from typing import Any

import torch
from torch import Tensor, nn

from stabmon.errors import ModelError
from stabmon.hooks.recording import Guarded, Recording
from stabmon.kernels import AuxRequest, observe
from stabmon.stats import Slots
from stabmon.stats.softmax import add_softmax


class Inert:
    """The form of a hook in a copied or unpickled model: the copy is not watched."""

    def __call__(self, *_: object) -> None:
        """Do nothing."""


class Hook(Guarded):
    """A hook that can be copied and pickled with its model without taking the monitor along."""

    def __init__(self, recording: Recording, name: str) -> None:
        super().__init__(name)
        self.recording = recording

    def __deepcopy__(self, memo: dict[int, Any]) -> Inert:
        return Inert()

    def __reduce__(self) -> tuple[type[Inert], tuple[()]]:
        return (Inert, ())


class StreamHook(Hook):
    """Adds the power of a module's first input or output tensor: the residual stream, or a branch."""

    def __init__(
        self, recording: Recording, name: str, at: slice, gain: Tensor | None = None, gain_at: slice = slice(0)
    ) -> None:
        super().__init__(recording, name)
        self.at, self.gain, self.gain_at = at, gain, gain_at

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, *output: Any) -> None:
        """Run as a forward pre-hook (inputs are read) or as a forward hook (the output is)."""
        if self.enabled and self.recording.counts(module):
            self.recording.guard(self, self.add, first_tensor(output if output else (args, kwargs)))

    def add(self, x: Tensor | None) -> None:
        """Add ``x``; a module without a tensor leaves its slots uncounted."""
        if x is not None:
            self.recording.writer.power(self.at, x)
        if self.gain is not None:
            self.recording.writer.gain(self.gain_at, self.gain)


class SigmoidObserver(Hook):
    """Sits in the kernels' observer slot while its attention runs, and adds each call.

    ``enter`` and ``leave`` are the attention's pre-hook and hook; ``leave`` runs after an exception too.
    """

    def __init__(self, recording: Recording, name: str, slots: Slots) -> None:
        super().__init__(recording, name)
        self.slots = slots
        self.inside = False
        self.previous: observe.Observer | None = None

    def request(self, query: Tensor, key: Tensor) -> AuxRequest | None:
        """Request statistics of one sequence from a kernel; on the CPU ``record`` computes them: their time is ours."""
        if query.device.type == "cpu" or not self.enabled:
            return None
        wanted = self.recording.request(query.size(0))
        return wanted._replace(rows=self.recording.rows, sequences=1)  # each sequence costs a pass over its keys

    def record(self, call: observe.Call) -> None:
        """Add ``call``."""
        if self.enabled:
            self.recording.guard(self, self.add, call)

    def add(self, call: observe.Call) -> None:
        """Add ``call`` to the site's slots.

        Raises:
            ModelError: the call has another number of heads than the module said when the monitor attached.
        """
        problem = call.problem
        heads = problem.query.size(1)
        if heads != self.slots.heads:
            raise ModelError(f"has {heads} heads, expected {self.slots.heads}; pass heads={{{self.name!r}: {heads}}}")
        detached = problem._replace(query=problem.query.detach(), key=problem.key.detach())
        self.measure(
            call._replace(problem=detached, output=call.output.detach()), self.recording.request(problem.query.size(0))
        )

    def measure(self, call: observe.Call, request: AuxRequest) -> None:
        """Write the statistics of ``call``; ``stabmon.preflight`` adds more."""
        if call.aux is None:
            read, request = self.recording.reading(call.problem.query.size(0))
        else:
            read = slice(None)
        self.recording.writer.call(self.slots, call, read, request)

    def enter(self) -> None:
        """Take the observer slot."""
        self.inside, self.previous = True, observe.swap(self)

    def leave(self) -> None:
        """Give the observer slot back."""
        if self.inside:
            observe.swap(self.previous)
            self.inside, self.previous = False, None


class EnterHook(Hook):
    """The forward pre-hook of a sigmoid attention."""

    def __init__(self, observer: SigmoidObserver) -> None:
        super().__init__(observer.recording, observer.name)
        self.observer = observer

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Let the observer see the calls of this pass, if it counts."""
        if self.observer.enabled and self.recording.counts(module):
            self.observer.enter()


class LeaveHook(Hook):
    """The forward hook of a sigmoid attention, also called when its forward raises."""

    def __init__(self, observer: SigmoidObserver) -> None:
        super().__init__(observer.recording, observer.name)
        self.observer = observer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Stop seeing calls."""
        self.observer.leave()


class SoftmaxHook(Hook):
    """The forward hook of an ``nn.MultiheadAttention``: computes sampled rows again from its inputs and weights."""

    def __init__(self, recording: Recording, name: str, slots: Slots) -> None:
        super().__init__(recording, name)
        self.slots = slots

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Add this pass, if it counts."""
        if self.enabled and self.recording.counts(module):
            self.recording.guard(self, self.add, module, args, kwargs)

    def add(self, module: nn.MultiheadAttention, args: Any, kwargs: Any) -> None:
        """Add the call with the inputs ``args`` and ``kwargs``."""
        add_softmax(self.recording.writer, self.slots, module, args, kwargs, self.recording.request)


def first_tensor(value: Any) -> Tensor | None:
    """Return the first floating tensor in nested tuples, lists and mappings, or None."""
    if isinstance(value, Tensor):
        return value if torch.is_floating_point(value) else None
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    for element in inner:
        found = first_tensor(element)
        if found is not None:
            return found
    return None
