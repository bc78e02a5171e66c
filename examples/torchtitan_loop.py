"""A loop in torchtitan's form: ``watch`` after the model is on its device, before its blocks are compiled.

torchtitan's container of optimizers has one of torch's for each model part, and stabmon watches a part with its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import stabmon
from stabmon.nn import Block, SigmoidAttention


@dataclass
class JobConfig:
    """The settings of a run."""

    steps: int = 10
    accumulate: int = 2
    lr: float = 1e-3
    max_norm: float = 1.0
    compile: bool = False
    backend: str = "inductor"


class Transformer(nn.Module):
    """A decoder whose blocks are a dictionary, as in torchtitan."""

    def __init__(self, layers: int = 2, dim: int = 32, heads: int = 4, vocabulary: int = 64) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocabulary, dim)
        self.layers = nn.ModuleDict(
            {str(i): Block(dim, SigmoidAttention(dim, heads, max_length=16, is_causal=True)) for i in range(layers)}
        )
        self.output = nn.Linear(dim, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [batch, tokens, vocabulary]."""
        hidden = self.tok_embeddings(tokens)
        for layer in self.layers.values():
            hidden = layer(hidden)
        return self.output(hidden)


class Optimizers:
    """One optimizer a model part, stepped together."""

    def __init__(self, model_parts: list[nn.Module], lr: float) -> None:
        self.optimizers = [torch.optim.AdamW(part.parameters(), lr=lr) for part in model_parts]

    def step(self) -> None:
        """Step all."""
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        """Clear all gradients."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()


class Trainer:
    """Trains one model part."""

    def __init__(self, config: JobConfig) -> None:
        self.config, self.model_parts = config, [Transformer()]
        self.optimizers = Optimizers(self.model_parts, config.lr)
        model, optimizer = self.model_parts[0], self.optimizers.optimizers[0]
        self.monitor = stabmon.watch(model, optimizer, dir="runs", config=config)
        if config.compile:
            for layer in model.layers.values():
                layer.compile(backend=config.backend, fullgraph=True)

    def train_step(self, batches: Iterator[Tensor]) -> None:
        """Take one step over ``accumulate`` batches."""
        total = torch.zeros(())
        for _ in range(self.config.accumulate):
            tokens = next(batches)
            logits = self.model_parts[0](tokens)[:, :-1]
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()) / self.config.accumulate
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_([p for part in self.model_parts for p in part.parameters()], self.config.max_norm)
        self.optimizers.step()
        self.optimizers.zero_grad()
        self.monitor.log(loss=total)

    def train(self) -> None:
        """Train to the end."""
        batches = iter(torch.randint(64, (self.config.steps * self.config.accumulate, 4, 16)))
        with self.monitor:
            for _ in range(self.config.steps):
                self.train_step(batches)


if __name__ == "__main__":
    Trainer(JobConfig()).train()
