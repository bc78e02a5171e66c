"""A byte-level causal language model with sigmoid or softmax attention."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.config import ModelConfig, RunConfig
from stabmon.errors import ConfigError
from stabmon.nn import RMSNorm
from stabmon.workloads.blocks import blocks
from stabmon.workloads.text import standard_library
from stabmon.workloads.workload import Batch

BYTES = 256
"""Size of the vocabulary."""
VALIDATION_BYTES = 2**15
"""Bytes of a validation pass, evenly spread over the text that training never sees."""
UNIT = "nats a byte"


class ByteLanguageModel(nn.Module):
    """Transformer over bytes: embedding (and learned positions), blocks, norm, head.

    Every weight starts as PyTorch's own modules do, so the residual stream starts at root mean square one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.context = config.context
        self.embedding = nn.Embedding(BYTES, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        self.layers = blocks(config, config.context, is_causal=True)
        self.norm = RMSNorm(config.width)
        self.head = nn.Linear(config.width, BYTES)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits [B, N, 256] of the byte after each of ``tokens`` [B, N] int64.

        Raises:
            ValueError: N is above the context and positions are learned.
        """
        x: Tensor = self.embedding(tokens)
        if self.positions is not None:
            if tokens.shape[1] > self.context:
                raise ValueError(
                    f"learned positions end at {self.context}, got {tokens.shape[1]} tokens; cut the input"
                )
            x = x + self.positions.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def build(config: ModelConfig) -> ByteLanguageModel:
    """Return the model of ``config``."""
    return ByteLanguageModel(config)


def batches(config: RunConfig) -> Iterator[Batch]:
    """Yield windows of the standard library's text, [batch, context] int64, without end."""
    generator = torch.Generator().manual_seed(config.training.seed)
    text = standard_library().train
    while True:
        inputs, targets = windows(text, config.training.batch, config.model.context, generator)
        yield Batch((inputs,), (targets,))


def validation(config: RunConfig, length: int) -> Iterator[Batch]:
    """Yield windows of ``length`` bytes of the text that training never sees, one at a time, 32 KiB or one window."""
    text = standard_library().valid
    for part in torch.split(text, max(length + 1, len(text) * length // VALIDATION_BYTES)):
        if len(part) > length:
            window = part[: length + 1].long()[None]
            yield Batch((window[:, :-1],), (window[:, 1:],))


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of the next byte in nats."""
    return next_byte_loss(model(*batch.inputs), *batch.targets)


def corrupt(batch: Batch, generator: torch.Generator) -> Batch:
    """Return random bytes, and targets that are random bytes too."""
    (inputs,), (targets,) = batch
    noise = torch.randint(BYTES, (2, *inputs.shape), generator=generator)
    return Batch((noise[0].to(inputs),), (noise[1].to(targets),))


def next_byte_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats a byte; ``logits`` [B, N, 256] of any float dtype, ``targets`` [B, N]."""
    return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def windows(text: Tensor, batch: int, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return inputs and targets [batch, context] int64: random windows of ``text``, targets one byte later.

    Raises:
        ConfigError: the text is shorter than one window.
    """
    last = len(text) - context - 1
    if last < 0:
        raise ConfigError(f"a window needs {context + 1} bytes of text, got {len(text)}; make model.context smaller")
    starts = torch.randint(last + 1, (batch, 1), generator=generator)
    taken = text[starts + torch.arange(context + 1)].long()
    return taken[:, :-1].contiguous(), taken[:, 1:].contiguous()
