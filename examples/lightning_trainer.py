"""Lightning: one line, ``callbacks=[StabmonCallback()]``. Needs ``pip install 'stabmon[lightning]'``."""

import lightning
import torch

from stabmon.integrations.lightning import StabmonCallback
from stabmon.nn import Block, SigmoidAttention


class LanguageModel(lightning.LightningModule):
    """A language model with two blocks of sigmoid attention."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Sequential(
            torch.nn.Embedding(64, 32),
            *(Block(32, SigmoidAttention(32, 4, max_length=16, is_causal=True)) for _ in range(2)),
            torch.nn.Linear(32, 64),
        )

    def training_step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the loss of the next token."""
        return torch.nn.functional.cross_entropy(self.model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


loader = torch.utils.data.DataLoader(torch.randint(64, (80, 16)), batch_size=4)
trainer = lightning.Trainer(max_steps=10, accelerator="cpu", logger=False, callbacks=[StabmonCallback(dir="runs")])
trainer.fit(LanguageModel(), loader)
