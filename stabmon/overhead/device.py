"""Effects of one step besides its time: host synchronisations, device memory, launches."""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_MIB = 2**20


class Launches(NamedTuple):
    """Number of launches by kernel and their device microseconds; on the CPU of PyTorch's own operations."""

    number: Counter[str]
    microseconds: Counter[str]


def synchronisations(step: Callable[[], None]) -> int:
    """Return how often the host waits for a CUDA device in ``step``."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing CUDA operation" in str(one.message) for one in seen)


def allocated(device: torch.device) -> float:
    """Return the MiB of a CUDA device that tensors asked for: blocks are larger, by as much as was left of others."""
    return _requested(device, "current")


def _requested(device: torch.device, kind: str) -> float:
    return float(torch.cuda.memory_stats(device)[f"requested_bytes.all.{kind}"]) / _MIB


def peak(step: Callable[[], None], device: torch.device) -> float:
    """Return how many MiB of a CUDA device ``step`` needs at most, above what tensors hold before it."""
    before = allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return _requested(device, "peak") - before


def launches(step: Callable[[], None], device: torch.device) -> Launches:
    """Return what ``step`` launches on ``device``: kernels, copies and fills of a GPU, operations on the CPU."""
    cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as profiler:
        step()
    count, microseconds = Counter[str](), Counter[str]()
    for event in profiler.events() or ():
        if event.device_type == DeviceType.CUDA if cuda else _is_operation(event):
            count[event.name] += 1
            microseconds[event.name] += int(event.device_time_total if cuda else event.cpu_time_total)
    return Launches(count, microseconds)


def _is_operation(event: object) -> bool:
    """Return whether ``event`` is an operation that no other one calls."""
    parent = getattr(event, "cpu_parent", None)
    return _named(event) and not (parent is not None and _named(parent))


def _named(event: object) -> bool:
    return str(getattr(event, "name", "")).startswith("aten::")
