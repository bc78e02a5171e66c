"""Places where a tensor of the forward pass can be read by a hook: a module's input or its output."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

Side = Literal["input", "output"]


class Point(NamedTuple):
    """One tensor among the inputs or outputs of a module.

    path: its place there: ("args", 0), ("kwargs", "hidden_states"), or of outputs () where it is the only one, (0,),
    ("last_hidden_state",). call: which of the module's ``calls`` in a pass it belongs to.
    """

    module: nn.Module
    name: str
    side: Side
    path: tuple[int | str, ...]
    call: int
    calls: int = 1

    def read(self, given: Any) -> Tensor | None:
        """Return the tensor from the inputs {"args": ..., "kwargs": ...} or the output of a call, None if not there."""
        for key in self.path:
            try:
                given = given[key]
            except (KeyError, IndexError, TypeError):
                return None
        return given if isinstance(given, Tensor) else None


class Points:
    """The points of every floating tensor that passed a module's boundary."""

    def __init__(self) -> None:
        self._found: MutableMapping[Tensor, list[Point]] = WeakTensorKeyDictionary()
        self.calls: dict[nn.Module, int] = {}
        """Calls of each module in the pass."""

    def enter(self, module: nn.Module, name: str, args: Any, kwargs: Any) -> int:
        """Note the inputs of a call and return the call's number."""
        call = self.calls.get(module, 0)
        self.calls[module] = call + 1
        for path, tensor in _tensors({"args": args, "kwargs": kwargs}, depth=3):
            self._add(tensor, Point(module, name, "input", path, call))
        return call

    def leave(self, module: nn.Module, name: str, call: int, output: Any) -> None:
        """Note the outputs of the call with the number ``call``."""
        for path, tensor in _tensors(output, depth=2):
            self._add(tensor, Point(module, name, "output", path, call))

    def of(self, tensor: Tensor) -> tuple[Point, ...]:
        """Return where ``tensor`` was seen so far, in order of time."""
        return tuple(self._found.get(tensor, ()))

    def _add(self, tensor: Tensor, point: Point) -> None:
        if tensor.is_floating_point():
            self._found.setdefault(tensor, []).append(point)


def _tensors(
    value: Any, depth: int, path: tuple[int | str, ...] = ()
) -> Iterator[tuple[tuple[int | str, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif depth and isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _tensors(inner, depth - 1, (*path, key))
    elif depth and isinstance(value, tuple | list):
        for index, inner in enumerate(value):
            yield from _tensors(inner, depth - 1, (*path, index))
