"""Accelerate: ``log_with="stabmon"``, and ``watch`` after ``prepare``. Needs ``pip install 'stabmon[accelerate]'``."""

import torch
from accelerate import Accelerator

from stabmon.integrations.accelerate import watch
from stabmon.nn import Block, SigmoidAttention

model = torch.nn.Sequential(
    torch.nn.Embedding(64, 32),
    *(Block(32, SigmoidAttention(32, 4, max_length=16, is_causal=True)) for _ in range(2)),
    torch.nn.Linear(32, 64),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = torch.utils.data.DataLoader(torch.randint(64, (80, 16)), batch_size=4)

accelerator = Accelerator(log_with="stabmon", gradient_accumulation_steps=2)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
accelerator.init_trackers("lm", config={"lr": 1e-3})
watch(accelerator, model, optimizer, dir="runs")

for tokens in loader:
    with accelerator.accumulate(model):
        loss = torch.nn.functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.log({"loss": loss})
accelerator.end_training()
