"""Hooks around an attention: while it runs, calls of attention functions are shown to its observer."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from stabmon.errors import ModelError
from stabmon.hooks.hook import Hook, Turn
from stabmon.hooks.recording import Recording
from stabmon.kernels import AuxRequest, observe
from stabmon.stats import Slots
from stabmon.stats.multihead import add_multihead
from stabmon.stats.softmax_rows import add_softmax


class CallObserver(Hook):
    """Sits in the observer slot while its attention runs, and adds each call.

    ``enter`` and ``leave`` are the attention's pre-hook and hook; ``leave`` runs after an exception too.

    slots: of each of the calls that the module makes in a pass, in order.
    branches: of each, whether its output is the branch as it is added.
    """

    def __init__(self, recording: Recording, name: str, slots: Sequence[Slots], branches: Sequence[bool] = ()) -> None:
        super().__init__(recording, name)
        self.slots, self.branches = tuple(slots), tuple(branches) or (False,) * len(slots)
        self.turn = Turn() if len(self.slots) > 1 else None
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

    def show(self, made: Callable[..., observe.Call], *args: Any, **kwargs: Any) -> None:
        """Add another function's call, as ``made`` describes it."""
        if self.enabled:
            self.recording.guard(self, self._add_made, made, args, kwargs)

    def _add_made(self, made: Callable[..., observe.Call], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.add(made(*args, **kwargs))

    def add(self, call: observe.Call) -> None:
        """Add ``call`` to its slots.

        Raises:
            ModelError: the call has another number of heads than the scan saw, or is one more than it saw.
        """
        index = 0 if self.turn is None else self.turn.take()
        if index >= len(self.slots):
            raise ModelError(f"is called more than the {len(self.slots)} times of the first pass")
        slots, heads = self.slots[index], call.problem.query.size(1)
        if heads != slots.heads:
            raise ModelError(f"has {heads} heads, had {slots.heads} in the first pass")
        problem = call.problem
        detached = problem._replace(query=problem.query.detach(), key=problem.key.detach())
        output = call.output.detach()
        if self.branches[index]:
            self.recording.writer.power(slots, "branch", output)
        self.measure(slots, call._replace(problem=detached, output=output))

    def measure(self, slots: Slots, call: observe.Call) -> None:
        """Write the statistics of ``call``; ``stabmon.preflight`` adds more."""
        batch = call.problem.query.size(0)
        read, request = slice(None), self.recording.request(batch)
        if call.problem.query.device.type == "cpu" and call.aux is None:
            read, request = self.recording.reading(batch)
        if call.kind == "softmax":
            add_softmax(self.recording.writer, slots, call, read, request)
        else:
            self.recording.writer.call(slots, call, read, request)

    def enter(self) -> None:
        """Take the observer slot."""
        self.inside, self.previous = True, observe.swap(self)

    def leave(self) -> None:
        """Give the observer slot back."""
        if self.inside:
            observe.swap(self.previous)
            self.inside, self.previous = False, None


class EnterHook(Hook):
    """The forward pre-hook of an attention."""

    def __init__(self, observer: CallObserver) -> None:
        super().__init__(observer.recording, observer.name)
        self.observer = observer

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Let the observer see the calls of this pass, if it counts."""
        if self.observer.enabled and self.recording.counts(module):
            self.observer.enter()


class LeaveHook(Hook):
    """The forward hook of an attention, also called when its forward raises."""

    def __init__(self, observer: CallObserver) -> None:
        super().__init__(observer.recording, observer.name)
        self.observer = observer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Stop seeing calls."""
        self.observer.leave()


class Unseen(CallObserver):
    """The observer of a ``MultiheadAttention``: the functions it calls are not another attention's."""

    def request(self, query: Tensor, key: Tensor) -> AuxRequest | None:
        """Request nothing."""
        return None

    def record(self, call: observe.Call) -> None:
        """Pass over ``call``: ``MultiheadHook`` reads the module whole."""

    def show(self, made: Callable[..., observe.Call], *args: Any, **kwargs: Any) -> None:
        """Pass over the call."""


class MultiheadHook(Hook):
    """The forward hook of an ``nn.MultiheadAttention``: computes sampled rows again from its inputs and weights."""

    def __init__(self, recording: Recording, name: str, slots: Sequence[Slots]) -> None:
        super().__init__(recording, name)
        self.slots = tuple(slots)
        self.turn = Turn() if len(self.slots) > 1 else None

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        """Add this pass, if it counts."""
        if self.enabled and self.recording.counts(module):
            self.recording.guard(self, self.add, module, args, kwargs)

    def add(self, module: nn.MultiheadAttention, args: Any, kwargs: Any) -> None:
        """Add the call with the inputs ``args`` and ``kwargs``."""
        slots = self.slots[0 if self.turn is None else self.turn.take()]
        add_multihead(self.recording.writer, slots, module, args, kwargs, self.recording.request)
