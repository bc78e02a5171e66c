"""Surroundings of an attention: its residual block, and the module whose output joins the residual stream."""

import re
from typing import NamedTuple

from torch import nn

from stabmon.nn import Block, LayerScale

_CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)
_SCALE_NAME = re.compile(r"layer_?scale", re.IGNORECASE)


class Surroundings(NamedTuple):
    """The modules around an attention, each with its path in the model."""

    block_name: str
    block: nn.Module
    branch_name: str
    branch: nn.Module
    gain: nn.Parameter | None
    """Gain of the LayerScale on the branch, or None where there is none."""


def surroundings(model: nn.Module, name: str) -> Surroundings:
    """Return the surroundings of the attention at path ``name`` in ``model``.

    Its block is the innermost ancestor that is an element of a ModuleList, Sequential or ModuleDict, else its parent.
    Its branch is a stabmon Block's ``attention_scale``, else the first LayerScale after it in the block, else itself.
    """
    block_name = _block_name(model, name)
    block = model.get_submodule(block_name)
    attention = model.get_submodule(name)
    if isinstance(block, Block):
        found: tuple[str, nn.Module] | None = ("attention_scale", block.attention_scale)
    else:
        found = _scale_after(block, attention)
    if found is None:
        return Surroundings(block_name, block, name, attention, None)
    path = f"{block_name}.{found[0]}".lstrip(".")
    return Surroundings(block_name, block, path, found[1], _gain(found[1]))


def _block_name(model: nn.Module, name: str) -> str:
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if isinstance(model.get_submodule(".".join(parts[: length - 1])), _CONTAINERS):
            return ".".join(parts[:length])
    return ".".join(parts[:-1])


def _scale_after(block: nn.Module, attention: nn.Module) -> tuple[str, nn.Module] | None:
    """Return the first LayerScale among the block's children after the one that holds ``attention``."""
    inside = None
    for name, child in block.named_children():
        if inside is None:
            held = list(child.modules())
            inside = child if any(module is attention for module in held) else None
            continue
        if _is_scale(child):
            return name, child
        if isinstance(child, nn.Linear | nn.Sequential):
            return None
    return None


def _is_scale(module: nn.Module) -> bool:
    return isinstance(module, LayerScale) or bool(_SCALE_NAME.search(type(module).__name__))


def _gain(module: nn.Module) -> nn.Parameter | None:
    return next(module.parameters(recurse=False), None) if _is_scale(module) else None
