"""The protocol of a workload: a model, its data and its loss, so that one loop trains them all."""

from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn

from stabmon.config import ModelConfig, RunConfig


class Batch(NamedTuple):
    """One batch on one device: the model's inputs, and the targets of its outputs."""

    inputs: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]

    def to(self, device: str | torch.device) -> "Batch":
        """Return the batch on ``device``."""
        return Batch(tuple(x.to(device) for x in self.inputs), tuple(x.to(device) for x in self.targets))


class Workload(Protocol):
    """A small real training; ``language``, ``vision`` and ``speech`` are modules with these names."""

    UNIT: str
    """Unit of the loss, for people: "nats a byte"."""

    def build(self, config: ModelConfig) -> nn.Module:
        """Return the model, with weights drawn from torch's global generator."""
        ...

    def batches(self, config: RunConfig) -> Iterator[Batch]:
        """Yield training batches without end, on the CPU; seed, batch and context alone decide them."""
        ...

    def validation(self, config: RunConfig, length: int) -> Iterator[Batch]:
        """Yield the validation batches, on the CPU: of this ``length``, seen by no training, the same every time."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss in ``UNIT``, a scalar with its graph."""
        ...

    def corrupt(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return ``batch`` as a corrupt record would have it: noise, and targets that do not belong to it."""
        ...


def workload(config: RunConfig) -> Workload:
    """Return the workload that ``config`` names."""
    return cast(Workload, import_module(f"stabmon.workloads.{config.workload}"))
