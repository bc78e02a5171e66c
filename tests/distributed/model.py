"""A small decoder whose attention tensor parallelism can split, and its training in each form of parallelism."""

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from stabmon import Schedule, watch
from stabmon.kernels import sigmoid_attention

WIDTH, HEADS, LENGTH, BATCH, STEPS = 32, 4, 8, 8, 3
EVERYTHING = Schedule(dense=0, every=1, rows=BATCH * 16)
"""Every row of every sequence is read, so that the numbers do not depend on who reads which."""


class Attention(nn.Module):
    """Heads follow from the projections' width, as in the models that torch's own tensor parallelism is shown with."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))

    def forward(self, x):
        query, key, value = (
            projection(x).unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        return self.out(sigmoid_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm1, self.norm2 = Attention(), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, 64), nn.GELU(), nn.Linear(64, WIDTH))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 50)
        self.layers = nn.ModuleList([Layer() for _ in range(2)])

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return nn.functional.cross_entropy(self.head(x)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def tokens(step):
    return torch.randint(0, 50, (BATCH, LENGTH), generator=torch.Generator().manual_seed(step))


def parallel(kind, model, world, device="cpu"):
    """Return ``model`` in one form of parallelism, and on how many ranks its batches are spread."""
    mesh = init_device_mesh(device, (world,), mesh_dim_names=("dp",))
    if kind == "ddp":
        return DistributedDataParallel(model), world
    if kind == "fsdp2":
        shard(model, mesh)
        return model, world
    if kind.startswith("fsdp1"):
        from torch.distributed.fsdp import FullyShardedDataParallel
        from torch.distributed.fsdp.wrap import ModuleWrapPolicy

        policy = None if kind == "fsdp1-joined" else ModuleWrapPolicy({Layer})
        where = torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)
        options = {"auto_wrap_policy": policy, "device_id": where, "use_orig_params": kind == "fsdp1-original"}
        return FullyShardedDataParallel(model, **options), world
    if kind == "tp":
        split(model, init_device_mesh(device, (world,)))
        return model, 1
    assert kind == "fsdp2-tp"
    mesh = init_device_mesh(device, (world // 2, 2), mesh_dim_names=("dp", "tp"))
    split(model, mesh["tp"])
    shard(model, mesh["dp"])
    return model, world // 2


def shard(model, mesh):
    from torch.distributed.fsdp import fully_shard

    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def split(model, mesh):
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    columns = dict.fromkeys(
        ["attention.query", "attention.key", "attention.value", "feed_forward.0"], ColwiseParallel()
    )
    for layer in model.layers:
        parallelize_module(
            layer, mesh, columns | {"attention.out": RowwiseParallel(), "feed_forward.2": RowwiseParallel()}
        )


def whole(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(model, batches, **watched):
    """Train and return the weights and the monitor, which is None where nothing is ``watched``."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = watch(model, optimizer, schedule=EVERYTHING, console=False, **watched) if watched else None
    for batch in batches:
        loss = model(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if monitor:
            monitor.log(loss=loss.detach())
    if monitor:
        monitor.close()
    return [whole(p.detach()).clone() for p in model.parameters()], monitor


def gradient_norms():
    """Return the norms of each block, and of all, of the same training in one process in float64, [STEPS, 3]."""
    model = Decoder().double()
    optimizer, norms = torch.optim.SGD(model.parameters(), 0.1), []
    for step in range(STEPS):
        model(tokens(step)).backward()
        parts = (*model.layers, model)
        norms.append([torch.stack([p.grad.norm() for p in part.parameters()]).norm().item() for part in parts])
        optimizer.step()
        optimizer.zero_grad()
    return norms
