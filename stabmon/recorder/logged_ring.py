"""Numbers logged between samples on their way to the writer thread: those of a device through slots, as rows are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from stabmon.recorder.ring import Ring
from stabmon.series import Logged


class OnTheWay(NamedTuple):
    """Logged numbers; where ``on_device`` says so, the value is at the same index of the buffer in ``slot``."""

    values: Sequence[Logged]
    on_device: Sequence[bool]
    slot: int | None


class LoggedRing:
    """``capacity`` slots for the buffers of a device."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ring: Ring | None = None

    def put(self, values: Sequence[Logged], on_device: Sequence[bool], buffer: torch.Tensor | None) -> OnTheWay | None:
        """Copy ``buffer``, where there is one, without waiting; return None where no slot is free."""
        if buffer is None:
            return OnTheWay(values, on_device, None)
        if self._ring is None:
            self._ring = Ring(self._capacity, len(buffer))
        slot = self._ring.put(buffer)
        return None if slot is None else OnTheWay(values, on_device, slot)

    def take(self, item: OnTheWay) -> list[Logged]:
        """Wait for the copy, free its slot and return the numbers."""
        values = list(item.values)
        if item.slot is not None and self._ring is not None:
            numbers = self._ring.take(item.slot)
            for at in np.flatnonzero(item.on_device):
                values[at] = values[at]._replace(value=float(numbers[at]))
        return values
