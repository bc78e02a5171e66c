"""CUDA devices as the backends see them: capability, interpreter, and refusals of calls."""

import os
from functools import cache
from typing import NamedTuple

import torch

INTERPRETER = (8, 0)
"""The capability that Triton's interpreter counts as."""
OVERLAPPING = (9, 0)
"""The first capability with programmatic dependent launch."""
PACKED = frozenset({"query_starts", "key_starts", "max_q", "max_k"})
"""The fields of a ``Problem`` that packed sequences use."""


class Refusal(NamedTuple):
    """The reason why a backend cannot take a call; ``of_machine``: a limit of the machine, not of the arguments."""

    text: str
    of_machine: bool


def untaken(backend: str, takes: frozenset[str], used: frozenset[str]) -> Refusal | None:
    """Return why ``backend``, which knows the fields ``takes`` of a ``Problem``, cannot take ``used`` ones."""
    names = sorted("packed sequences" if name in PACKED else name for name in used - takes)
    return Refusal(f"backend={backend!r} does not take {names[0]}", False) if names else None


def interpreted() -> bool:
    """Return whether Triton kernels run in its interpreter, on CPU tensors (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def on_device(device: torch.device) -> bool:
    """Return whether kernels are compiled for ``device``, not interpreted."""
    return device.type == "cuda"


def capability(device: torch.device) -> tuple[int, int]:
    """Return the device's CUDA capability.

    Read from the device's properties, which torch.compile knows to be constant; get_device_capability it does not know.
    """
    if device.type != "cuda":
        return INTERPRETER
    properties = torch.cuda.get_device_properties(device)
    return properties.major, properties.minor


def overlaps(device: torch.device) -> bool:
    """Return whether a kernel may let the next one of its stream begin early (programmatic dependent launch)."""
    return on_device(device) and capability(device) >= OVERLAPPING


@cache
def processors(device: torch.device) -> int:
    """Return the number of multiprocessors; the interpreter runs one program at a time."""
    return torch.cuda.get_device_properties(device).multi_processor_count if on_device(device) else 1
