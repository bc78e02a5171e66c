"""Several processes: every rank calls ``watch``, rank 0 writes one run of the whole model.

torchrun --nproc-per-node 2 examples/several_processes.py
"""

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard

import stabmon
from stabmon.nn import Block, SigmoidAttention


class LanguageModel(nn.Module):
    """Two blocks of sigmoid attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(64, 32), nn.Linear(32, 64)
        self.blocks = nn.ModuleList(Block(32, SigmoidAttention(32, 4, max_length=16, is_causal=True)) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [batch, tokens, 64]."""
        hidden = self.embedding(tokens)
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(hidden)


rank, ranks = 0, 1
torch.manual_seed(0)
model = LanguageModel()
data = torch.randint(64, (10, 4, 16))
if distributed.is_torchelastic_launched():
    distributed.init_process_group("gloo")  # "nccl" on GPUs
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

with stabmon.watch(model, optimizer, dir="runs") as monitor:
    for batch in data:
        tokens = batch.chunk(ranks)[rank]
        loss = nn.functional.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        monitor.log(loss=loss)  # the mean over ranks is recorded
if rank == 0:
    for finding in monitor.findings:
        print(finding)
if ranks > 1:
    distributed.destroy_process_group()
