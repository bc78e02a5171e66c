"""Numbers that a training logs at steps that are no samples: kept where they are, and handed over together."""

import math
import time as clock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stabmon.series import Logged

CAPACITY = 128
"""Numbers that are kept; with more, they are handed over before the next sample."""


class HandOver(NamedTuple):
    """Logged numbers; where ``on_device`` says so, the value is at the same index of ``buffer`` [CAPACITY]."""

    values: list[Logged]
    on_device: list[bool]
    buffer: Tensor | None


class Between:
    """The numbers logged since the last sample: those of the host, and copies of those on a device.

    Nothing waits for the device. Of one step and name the last number counts.
    """

    def __init__(self) -> None:
        self._at: dict[tuple[int, str], int] = {}
        self._values: list[Logged] = []
        self._on_device: list[bool] = []
        self._buffer: Tensor | None = None

    @property
    def full(self) -> bool:
        """There is no room for another number."""
        return len(self._values) >= CAPACITY

    def add(self, step: int, metric: str, value: float | Tensor) -> None:
        """Keep the number ``value`` of ``step``."""
        at = self._at.setdefault((step, metric), len(self._values))
        if at == len(self._values):
            self._values.append(Logged(step, clock.time(), metric, math.nan))
            self._on_device.append(False)
        self._on_device[at] = isinstance(value, Tensor) and not value.is_cpu
        if isinstance(value, Tensor) and self._on_device[at]:
            self._copy(value, at)
        else:
            self._values[at] = self._values[at]._replace(value=narrow(value))

    def _copy(self, value: Tensor, at: int) -> None:
        if self._buffer is None:
            self._buffer = torch.empty(CAPACITY, device=value.device)
        self._buffer[at].copy_(value.detach().reshape(()), non_blocking=True)

    def take(self) -> HandOver:
        """Return what was kept, and forget it; the buffer is written to again by the next number."""
        kept = HandOver(self._values, self._on_device, self._buffer if any(self._on_device) else None)
        self._at, self._values, self._on_device = {}, [], []
        return kept


def narrow(value: float | Tensor) -> float:
    """Return ``value`` as float32 holds it: infinite where it is too large."""
    try:
        number = float(value)
    except OverflowError:  # an integer beyond float64
        return math.inf if value > 0 else -math.inf
    with np.errstate(over="ignore"):
        return float(np.float32(number))
