"""Hugging Face Trainer: one line, ``callbacks=[StabmonCallback()]``. Needs ``pip install 'stabmon[transformers]'``."""

import torch
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments

from stabmon.integrations.transformers import StabmonCallback
from stabmon.nn import Block, SigmoidAttention


class TinyModel(PreTrainedModel):
    """A language model with two blocks of sigmoid attention."""

    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        attentions = [SigmoidAttention(32, 4, max_length=16, is_causal=True) for _ in range(2)]
        self.embedding = torch.nn.Embedding(64, 32)
        self.layers = torch.nn.Sequential(*(Block(32, attention) for attention in attentions))
        self.head = torch.nn.Linear(32, 64)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, **_: object) -> dict[str, torch.Tensor]:
        """Return the loss of the next token."""
        logits = self.head(self.layers(self.embedding(input_ids)))
        return {"loss": torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())}


tokens = [torch.randint(64, (16,)) for _ in range(64)]
trainer = Trainer(
    model=TinyModel(PretrainedConfig()),
    args=TrainingArguments(
        "checkpoints", max_steps=10, logging_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True
    ),
    train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
    callbacks=[StabmonCallback(dir="runs")],
)
trainer.train()
