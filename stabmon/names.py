"""Module names as the model's author wrote them, and the order in which people count them."""

import re

WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Attribute names that torch.compile, DDP, FSDP and activation checkpointing put into a module's path."""

RUN_NAME = r"^\w[\w.-]*$"
"""What a run may be called, since its folder has that name: letters, digits and '_', from the second on '.' and '-'."""

_PATTERN = re.compile(r"\d+|\D+")


def own_name(name: str) -> str:
    """Return ``name`` without the wrappers' parts: ``module.layers.0._orig_mod.a`` is ``layers.0.a``."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sorting key that puts ``layers.2`` before ``layers.10``."""
    parts = _PATTERN.findall(name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def padded(name: str, width: int = 2) -> str:
    """Return ``name`` with its numbers zero-padded (``layers.3`` is ``layers.03``), for tools that sort as text."""
    return re.sub(r"\d+", lambda number: number.group().zfill(width), name)
