"""One conversion under way: what was asked for, what is done, and how each change is taken back."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Literal, NamedTuple

from torch import nn

from stabmon.conversion import additions, structure
from stabmon.conversion.changes import put
from stabmon.conversion.report import Converted, Kept
from stabmon.errors import ModelError
from stabmon.formatting import number

ALREADY = "it is sigmoid attention already"


class Wanted(NamedTuple):
    """The arguments of ``stabmon.convert``."""

    bias: float | Literal["learnable"] | None
    qk_norm: bool
    layer_scale: float | None
    max_length: int | None

    def start(self, longest: int | None) -> float:
        """Return the bias, or its first value, for a model whose longest training length is ``longest``.

        Raises:
            ModelError: it depends on a length that nobody says.
        """
        if self.bias is not None and self.bias != "learnable":
            return float(self.bias)
        length = longest if self.max_length is None else self.max_length
        if length is None:
            raise ModelError("its longest training length is unknown; pass max_length or a number as bias")
        return -math.log(length)


class Work:
    """A conversion of ``model``.

    Each kind of model converts the modules that it knows; ``remaining`` gives it those that no kind before it took.
    """

    def __init__(self, model: nn.Module, wanted: Wanted) -> None:
        self.model, self.wanted = model, wanted
        self.changes = ExitStack()
        self.converted: list[Converted] = []
        self.kept: list[Kept] = []

    def remaining(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules, with their paths, that are neither converted nor known to be kept, nor within such."""
        taken = self.known()
        for name, module in self.model.named_modules():
            if not any(name == path or name.startswith(f"{path}.") or not path for path in taken):
                yield name, module

    def known(self) -> list[str]:
        """Return the paths of what is converted or kept."""
        return [*(found.module for found in self.converted), *(found.module for found in self.kept)]

    def attempt(self, kind: str, name: str, change: Callable[[ExitStack], float]) -> None:
        """Convert the attention ``name`` by ``change``, which returns the bias; where that refuses, keep it whole."""
        module = self.model.get_submodule(name)
        if hasattr(module, additions.BIAS):
            self.kept.append(Kept(name, ALREADY))
            return
        with ExitStack() as changes:
            try:
                start = change(changes)
            except ModelError as reason:
                self.kept.append(Kept(name, str(reason)))
                return
            self.changes.push(changes.pop_all())
        self.done(kind, name, module, start)

    def add(self, name: str, longest: int | None, undo: ExitStack) -> float:
        """Give the attention ``name`` the bias, norms and gain that were asked for, and return the bias.

        Raises:
            ModelError: the structure does not say what one of them needs.
        """
        module, holder = self.model.get_submodule(name), structure.holder(self.model, name)
        start = self.wanted.start(longest)
        if self.wanted.bias == "learnable":
            additions.add_bias(module, structure.heads(module, holder), start, undo, holder)
        else:
            put(module, additions.BIAS, start, undo)
        if self.wanted.qk_norm:
            additions.add_qk_norm(module, structure.head_dim(module, holder), undo, holder)
        if self.wanted.layer_scale is not None:
            additions.add_layer_scale(module, structure.projection(self.model, name), self.wanted.layer_scale, undo)
        return start

    def done(self, kind: str, name: str, module: nn.Module, start: float) -> None:
        """Report the attention ``name`` as converted."""
        added = additions.names(module)
        learns = self.wanted.bias == "learnable"
        self.converted.append(
            Converted(name, kind, f"learnable, from {number(start)}" if learns else number(start), added)
        )
