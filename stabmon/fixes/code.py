"""Text of suggested code: module paths, hunks of a unified diff, and numbers as they are written. No torch."""

from collections.abc import Sequence

EARLY = "# before the optimizer is made: these are new parameters"
LIKE_BRANCH = ".to(block.attention.out.weight)"
"""Gives a module the device and type of the block's attention."""


def join(name: str, child: str) -> str:
    """Return the path of ``child`` in the module at ``name`` (empty: the model itself)."""
    return f"{name}.{child}" if name else child


def fetch(name: str) -> str:
    """Return the expression for the module at ``name`` of a ``model``."""
    return f'model.get_submodule("{name}")' if name else "model"


def hunk(where: str, old: Sequence[str], new: Sequence[str], around: Sequence[str] = ()) -> str:
    """Return removed and added lines under a line that says where; ``around`` is what stands before them."""
    lines = [f"@@ {where} @@", *(f" {line}" for line in around)]
    return "\n".join([*lines, *(f"-{line}" for line in old), *(f"+{line}" for line in new)])
