"""Residual blocks by the nesting of modules: an element of a list of blocks."""

from torch import nn

_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def block_name(model: nn.Module, name: str) -> str:
    """Return the path of the innermost element of a ModuleList, Sequential or ModuleDict that is or holds ``name``.

    "" where there is none.
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if name and isinstance(model.get_submodule(".".join(parts[: length - 1])), _CONTAINERS):
            return ".".join(parts[:length])
    return ""


def common(first: str, second: str) -> str:
    """Return the path of the innermost module that is or holds both."""
    shared = []
    for one, other in zip(first.split("."), second.split("."), strict=False):
        if one != other:
            break
        shared.append(one)
    return ".".join(shared)


def depth(name: str) -> int:
    """Return how many names the path ``name`` has."""
    return len(name.split(".")) if name else 0


def is_in(name: str, block: str) -> bool:
    """Return whether the module at path ``name`` is the one at ``block`` or a part of it."""
    return not block or name == block or name.startswith(f"{block}.")
