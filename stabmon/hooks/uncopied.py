"""Hooks that stay behind when the model they are on is copied or saved."""

import contextlib
from collections.abc import Callable
from typing import Any


class Uncopied:
    """A hook whose copy, in a copied or unpickled model, does nothing: the copy is not watched.

    What stands for it there comes from the standard library, takes any arguments and returns None, so that a saved
    model loads where stabmon is not installed.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return contextlib.nullcontext().__exit__

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return getattr, (contextlib.nullcontext(), "__exit__")
