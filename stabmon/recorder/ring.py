"""Slots that a step's numbers are copied into without waiting: plain memory for the CPU, pinned memory for CUDA."""

from collections import deque

import numpy as np
import torch

from stabmon.series import Floats


class Ring:
    """``capacity`` slots of ``width`` float32 numbers, filled on one thread and emptied on another.

    On CUDA the copy is queued on the current stream, behind what fills the buffer and before what overwrites it, and an
    event marks its end: the training thread never waits for the device.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self.capacity = capacity
        self.width = width
        self._free = deque(range(capacity))
        self._slots: list[torch.Tensor] = []
        self._ends: list[torch.cuda.Event] = []

    def put(self, buffer: torch.Tensor) -> int | None:
        """Copy ``buffer`` [width] into a free slot and return its number, or None when there is none."""
        if not self._slots:
            self._allocate(pinned=buffer.is_cuda)
        try:
            slot = self._free.popleft()
        except IndexError:
            return None
        try:
            self._copy(buffer.detach(), slot)
        except BaseException:
            self._free.append(slot)
            raise
        return slot

    def _copy(self, buffer: torch.Tensor, slot: int) -> None:
        """Copy ``buffer``; only CUDA has an event that says when a copy that is not waited for has ended."""
        self._slots[slot].copy_(buffer, non_blocking=buffer.is_cuda)
        if buffer.is_cuda:
            self._ends[slot].record(torch.cuda.current_stream(buffer.device))

    def take(self, slot: int) -> Floats:
        """Wait until the copy into ``slot`` has ended, return its numbers [width], and free it."""
        if self._ends:
            self._ends[slot].synchronize()
        values: Floats = np.array(self._slots[slot].numpy(), dtype=np.float32)
        self._free.append(slot)
        return values

    def _allocate(self, pinned: bool) -> None:
        memory = torch.empty(self.capacity, self.width, dtype=torch.float32, pin_memory=pinned)
        if pinned:
            self._ends = [torch.cuda.Event(blocking=True) for _ in range(self.capacity)]  # type: ignore[no-untyped-call]
        self._slots = list(memory.unbind())
