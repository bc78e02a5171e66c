"""Hugging Face Trainer: one line, ``callbacks=[StabmonCallback()]``.

Needs ``pip install 'stabmon[transformers]'``. The model is a small Llama whose attention is sigmoid attention; stabmon
watches softmax models, too.
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from stabmon.integrations.transformers import StabmonCallback

config = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=16,
    attn_implementation="sigmoid",
)
tokens = [torch.randint(64, (16,)) for _ in range(64)]
trainer = Trainer(
    model=LlamaForCausalLM(config),
    args=TrainingArguments(
        "checkpoints", max_steps=10, logging_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to="none"
    ),
    train_dataset=[{"input_ids": row, "labels": row} for row in tokens],
    callbacks=[StabmonCallback(dir="runs")],
)
trainer.train()
