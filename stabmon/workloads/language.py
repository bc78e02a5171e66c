"""A byte-level causal language model with sigmoid attention."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.config import ModelConfig
from stabmon.nn import Block, RMSNorm, SigmoidAttention

BYTES = 256
"""Size of the vocabulary."""


class ByteLanguageModel(nn.Module):
    """Pre-norm transformer over bytes: embedding (and learned positions), blocks, norm, head.

    Every weight starts as PyTorch's own modules do, so the residual stream starts at root mean square one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.context = config.context
        self.embedding = nn.Embedding(BYTES, config.width)
        self.positions = nn.Embedding(config.context, config.width) if config.position == "learned" else None
        self.layers = nn.ModuleList(_block(config) for _ in range(config.layers))
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


def next_byte_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats a byte; ``logits`` [B, N, 256] of any float dtype, ``targets`` [B, N]."""
    return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def windows(text: Tensor, batch: int, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return inputs and targets [batch, context] int64: windows of ``text`` at random places, one byte apart.

    Raises:
        ValueError: the text is shorter than one window.
    """
    last = len(text) - context - 1
    if last < 0:
        raise ValueError(f"a window needs {context + 1} bytes of text, got {len(text)}; lower model.context")
    starts = torch.randint(last + 1, (batch, 1), generator=generator)
    taken = text[starts + torch.arange(context + 1)].long()
    return taken[:, :-1].contiguous(), taken[:, 1:].contiguous()


def _block(config: ModelConfig) -> Block:
    attention = SigmoidAttention(
        config.width,
        config.heads,
        bias=config.bias,
        max_length=config.context,
        is_causal=True,
        position=None if config.position == "learned" else config.position,
        qk_norm=config.qk_norm,
    )
    return Block(config.width, attention, layer_scale=config.layer_scale, hybrid_norm=config.hybrid_norm)
