"""Atomic counters of a kernel's finished programs: zeros, which the last program sets to zero again.

So they need no launch of their own. A counter must not be shared by kernels that may run at the same time: each stream
has its own, and so has each call that a CUDA graph captures, as graphs may be replayed on any stream.
"""

import threading
from collections.abc import Hashable

import torch
from torch import Tensor

SIZE = 2**18
"""Counters of a device that are zeroed at once, 1 MiB."""
LINE = 32
"""Counters in 128 bytes, which no two calls share."""

_lock = threading.Lock()
_unused: dict[torch.device, Tensor] = {}
_of_stream: dict[Hashable, Tensor] = {}


def counters(device: torch.device, number: int, kernel: str) -> Tensor:
    """Return at least ``number`` zeros, int32, for ``kernel`` on the device's current stream.

    Waits for the device once in every process, and where the zeros run out. A capture cannot wait: where too few are
    left, the zeros are part of its graph.
    """
    number = -(-number // LINE) * LINE
    if device.type != "cuda":
        return torch.zeros(number, dtype=torch.int32, device=device)
    if device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            return counters(device, number, kernel)
    if torch.cuda.is_current_stream_capturing():
        with _lock:
            return _take(device, number, True)
    key = kernel, device, torch.cuda.current_stream(device).cuda_stream
    found = _of_stream.get(key)
    if found is None or found.size(0) < number:
        with _lock:
            found = _of_stream[key] = _take(device, number, False)
    return found


def _take(device: torch.device, number: int, capturing: bool) -> Tensor:
    unused = _unused.get(device)
    if unused is None or unused.size(0) < number:
        fresh = torch.zeros(number if capturing else max(SIZE, number), dtype=torch.int32, device=device)
        if capturing:
            return fresh
        torch.cuda.current_stream(device).synchronize()
        unused = fresh
    _unused[device] = unused[number:]
    return unused[:number]
