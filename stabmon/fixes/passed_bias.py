"""The bias of a user's own module: an attribute that its class passes to ``sigmoid_attention``."""

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import libcst as cst
import torch
from libcst import matchers
from torch import Tensor, nn

from stabmon.conversion.changes import put
from stabmon.errors import FixError
from stabmon.fixes.call_edit import argument, calls
from stabmon.fixes.change import Applied, Change
from stabmon.fixes.code import join
from stabmon.formatting import number

_CALL = "sigmoid_attention"


class PassedBias(NamedTuple):
    """The attribute ``name`` of ``module``: a tensor of one number, or one a head, or a plain number."""

    module: nn.Module
    name: str

    @property
    def present(self) -> Tensor | float:
        """The bias."""
        bias: Tensor | float = getattr(self.module, self.name)
        return bias

    def apply(self, change: Change, undo: ExitStack) -> Applied:
        """Set it, or let it learn; ``undo`` takes that back.

        Raises:
            FixError: the value is missing, it learns already, or it is not one number a head.
        """
        path = join(change.module, self.name)
        if change.kind == "learnable_bias":
            self._learn(path, None if change.value is None else change.needed, undo)
            changed = f"{path} learns from now on, one number a head, from {number(self._mean())}"
            return Applied(module=change.module, changed=changed, parameters=(path,))
        before = self._mean()
        self._set(change.needed, undo)
        return Applied(module=change.module, changed=f"{path} is {number(self._mean())} and was {number(before)}")

    def _set(self, value: float, undo: ExitStack) -> None:
        bias = self.present
        if isinstance(bias, Tensor):
            undo.callback(_fill, bias, bias.detach().clone())
            _fill(bias, torch.full_like(bias, value))
        else:
            put(self.module, self.name, value, undo)

    def _learn(self, path: str, value: float | None, undo: ExitStack) -> None:
        bias = self.present
        if isinstance(bias, nn.Parameter):
            raise FixError(f"{path} learns already; take another fix of the finding")
        if not isinstance(bias, Tensor) or bias.dim() != 1:
            raise FixError(f"{path} is not a tensor of one number a head; make it one, then it can learn")
        start = bias.detach().clone() if value is None else torch.full_like(bias, value)
        owner = self.module._buffers if self.name in self.module._buffers else vars(self.module)
        owner.pop(self.name)
        undo.callback(owner.__setitem__, self.name, bias)
        self.module.register_parameter(self.name, nn.Parameter(start))
        undo.callback(delattr, self.module, self.name)

    def _mean(self) -> float:
        bias = self.present
        return float(bias.detach().float().mean()) if isinstance(bias, Tensor) else float(bias)


def passed_bias(module: nn.Module) -> PassedBias | None:
    """Return the bias of ``module``; None where its class does not pass an attribute of its own, always the same one.

    A property does not count, since what it returns may be made anew, nor a tensor that all modules of the class share.
    """
    found = {_attribute(call) for cls in type(module).__mro__ for call in _calls_of(cls)}
    name = found.pop() if len(found) == 1 else None
    if name is None:
        return None
    own = {**vars(module), **module._buffers, **module._parameters}
    held = own.get(name, inspect.getattr_static(type(module), name, None))
    if isinstance(held, Tensor):
        return PassedBias(module, name) if name in own and held.dim() <= 1 and held.is_floating_point() else None
    return PassedBias(module, name) if isinstance(held, int | float) and not isinstance(held, bool) else None


def _calls_of(cls: type) -> Iterator[cst.Call]:
    """Yield the calls of sigmoid attention in the source of a class."""
    if cls is nn.Module or cls is object:
        return
    try:
        source = textwrap.dedent(inspect.getsource(cls))
        tree = cst.parse_module(source)
    except (OSError, TypeError, cst.ParserSyntaxError):
        return
    yield from calls(tree, _CALL)


def _attribute(call: cst.Call) -> str | None:
    """Return the attribute of ``self`` that ``call`` is given as its bias, or None."""
    bias = argument(call, "bias")
    value = None if bias is None else bias.value
    if isinstance(value, cst.Attribute) and matchers.matches(value.value, matchers.Name("self")):
        return value.attr.value
    return None


def _fill(bias: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        bias.copy_(values)
