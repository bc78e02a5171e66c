"""A GPT with sigmoid attention, of stabmon's blocks."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from stabmon.nn import Block, RMSNorm, SigmoidAttention


class GPT(nn.Module):
    """Token embedding, blocks with rotary positions, norm, and a head that shares the embedding's weights."""

    def __init__(self, layers: int, heads: int, width: int, vocabulary: int, context: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = nn.ModuleList(
            Block(width, SigmoidAttention(width, heads, max_length=context, is_causal=True, position="rope"))
            for _ in range(layers)
        )
        self.norm = RMSNorm(width)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of ``targets`` after ``tokens``, both [B, N] int64, in nats a token."""
        x: Tensor = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        return functional.cross_entropy(torch.flatten(logits.float(), 0, 1), targets.flatten())
