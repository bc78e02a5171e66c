"""A tiny language model with dropout, its data, and what a run has recorded of it."""

from pathlib import Path

import torch
from torch import Tensor, nn

from stabmon.nn import Block, SigmoidAttention
from stabmon.series import is_missing
from stabmon.store import open_run


class LanguageModel(nn.Module):
    """Two blocks; returns the loss of the next token."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 16)
        attentions = [SigmoidAttention(16, 2, max_length=8, is_causal=True) for _ in range(2)]
        self.layers = nn.ModuleList(Block(16, attention) for attention in attentions)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(16, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = self.dropout(layer(hidden))
        return nn.functional.cross_entropy(self.head(hidden)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def dataset() -> Tensor:
    """Return 64 rows of 8 tokens."""
    return torch.randint(32, (64, 8), generator=torch.Generator().manual_seed(1))


def read(folder: Path, metric: str, name: str = "run") -> dict[int, list[float]]:
    """Return the measured values of ``metric`` by step, those of layers side by side."""
    with open_run(folder / "runs" / name) as run:
        series = run.read_layers(metric)
        rows = zip(series.steps.tolist(), series.values, strict=True)
        return {step: row.tolist() for step, row in rows if not is_missing(row).all()}
