"""A loop of your own: ``with stabmon.watch(model, optimizer)``, and ``monitor.log`` for the loss."""

import torch
from torch import Tensor, nn

import stabmon


class LanguageModel(nn.Module):
    """Two blocks of torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(64, 32), nn.Linear(32, 64)
        block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [batch, tokens, 64]."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.blocks(self.embedding(tokens), mask=mask, is_causal=True))


model = LanguageModel()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
data = torch.randint(64, (10, 4, 16))

print(stabmon.preflight(model, data[0]))
with stabmon.watch(model, optimizer, dir="runs") as monitor:
    for tokens in data:
        loss = nn.functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        monitor.log(loss=loss)
for finding in monitor.findings:
    print(finding)
