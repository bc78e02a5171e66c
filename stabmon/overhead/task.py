"""The trainings whose steps are timed: one of stabmon's configurations, or a language model of 124 million weights."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import cycle
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from stabmon.config import RunConfig
from stabmon.overhead.gpt import GPT
from stabmon.workloads import training
from stabmon.workloads.workload import Batch, workload


class Task(NamedTuple):
    """One training.

    model: builds a model with the same weights each time.
    batches: yields the same batches each time.
    """

    name: str
    device: torch.device
    model: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], Optimizer]
    batches: Callable[[], Iterator[Batch]]
    loss: Callable[[nn.Module, Batch], Tensor]
    autocast: Callable[[], AbstractContextManager[object]]
    clip: float | None

    def step(self, model: nn.Module, optimizer: Optimizer, batch: Batch) -> Tensor:
        """Take one optimizer step and return its loss."""
        with self.autocast():
            loss = self.loss(model, batch)
        torch.autograd.backward(loss)
        if self.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.clip)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()


def configured(config: RunConfig, device: str | torch.device) -> Task:
    """Return the training of ``config``."""
    device = torch.device(device)
    return Task(
        config.name,
        device,
        partial(training.build, config, device),
        partial(training.optimizer, config=config),
        partial(training.batches, config, device),
        workload(config).loss,
        partial(training.autocast, config.training, device),
        config.training.clip,
    )


def gpt_124m(device: str | torch.device) -> Task:
    """Return the training of a GPT-2 with sigmoid attention: 8 sequences of 2048 tokens in bf16, on a CPU 1 of 128."""
    device = torch.device(device)
    small = device.type == "cpu"
    return gpt(
        "gpt-124m",
        device,
        layers=12,
        heads=12,
        width=768,
        vocabulary=50304,
        shape=(1, 128) if small else (8, 2048),
        lower=None if small else torch.bfloat16,
    )


def gpt(
    name: str,
    device: torch.device,
    *,
    layers: int,
    heads: int,
    width: int,
    vocabulary: int,
    shape: tuple[int, int],
    lower: torch.dtype | None = None,
) -> Task:
    """Return the training of a ``GPT`` on random tokens of ``shape`` (sequences, tokens), autocast to ``lower``."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return GPT(layers, heads, width, vocabulary, shape[1]).to(device)

    def batches() -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randint(vocabulary, (2, *shape), generator=generator).to(device) for _ in range(4)]
        return cycle([Batch((inputs,), (targets,)) for inputs, targets in drawn])

    return Task(
        name,
        device,
        build,
        lambda model: AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True),
        batches,
        lambda model, batch: model(*batch.inputs, *batch.targets),
        lambda: nullcontext() if lower is None else torch.autocast(device.type, lower),
        1.0,
    )
