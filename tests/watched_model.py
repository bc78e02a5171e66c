"""A tiny language model with dropout, a loop around it, and a sink that keeps what it gets."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stabmon.findings import Finding
from stabmon.nn import Block, SigmoidAttention
from stabmon.records import RunInfo, RunState
from stabmon.series import Floats, Layout, Logged

WIDTH, HEADS, LENGTH = 16, 4, 12


class Kept:
    """A sink that keeps everything in memory."""

    name, advice = "kept", "nothing"

    def __init__(self) -> None:
        self.rows: dict[int, Floats] = {}
        self.between: dict[tuple[int, str], float] = {}
        """Numbers logged between samples, by step and name."""
        self.state: RunState | None = None

    def start(self, info: RunInfo, layout: Layout) -> None:
        self.info, self.layout = info, layout

    def sample(self, step: int, time: float, values: Floats) -> None:
        self.rows[step] = values

    def logged(self, values: Sequence[Logged]) -> None:
        self.between.update({(one.step, one.metric): one.value for one in values})

    def findings(self, changed: Sequence[Finding]) -> None: ...

    def close(self, state: RunState) -> None:
        self.state = state

    def of(self, metric: str, layer: str | None = None, step: int = 0) -> Floats:
        """Return the values of one metric at one step: [heads] of one layer, or of all layers in order."""
        columns = [column for column in self.layout.of_metric(metric) if layer in (None, column.layer)]
        return np.concatenate([self.rows[step][column.start : column.start + column.size] for column in columns])


class Tiny(nn.Module):
    """Embedding, two blocks with dropout between them, a head."""

    def __init__(self, **attention: Any) -> None:
        super().__init__()
        options = {"max_length": LENGTH, "is_causal": True} | attention
        self.embedding = nn.Embedding(32, WIDTH)
        self.layers = nn.ModuleList(
            Block(WIDTH, SigmoidAttention(WIDTH, HEADS, **options), layer_scale=0.5) for _ in range(2)
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(WIDTH, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = self.dropout(layer(x))
        return self.head(x)


def tokens(step: int, batch: int = 3, length: int = LENGTH) -> Tensor:
    return torch.randint(32, (batch, length), generator=torch.Generator().manual_seed(step))


def loss_of(model: nn.Module, step: int) -> Tensor:
    inputs = tokens(step)
    return nn.functional.cross_entropy(model(inputs).float().flatten(0, 1), inputs.roll(-1, 1).flatten())


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def quiet(kept: Kept) -> dict[str, Any]:
    """Arguments of ``watch`` that write no files and keep all rows."""
    return {"dir": None, "console": False, "sinks": [kept]}


@pytest.fixture
def tiny() -> Callable[..., Tiny]:
    def make(seed: int = 0, **attention: Any) -> Tiny:
        torch.manual_seed(seed)
        return Tiny(**attention)

    return make


@pytest.fixture
def loss() -> Callable[[nn.Module, int], Tensor]:
    return loss_of
