"""Functions that torch.compile does not make graphs of, although it may trace them as a part of a graph."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from torch._C._dynamo import eval_frame

_Function = TypeVar("_Function", bound=Callable[..., Any])


def uncompiled(function: _Function) -> _Function:
    """Return ``function``, which from now on runs as it is, with all that it calls, unless a graph calls it.

    ``torch.compiler.disable`` would break that graph.
    """
    assert isinstance(function, FunctionType)
    skip = eval_frame._FrameAction.SKIP
    eval_frame.set_code_exec_strategy(function.__code__, eval_frame._FrameExecStrategy(skip, skip))
    return function
