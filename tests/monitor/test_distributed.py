"""Two DDP processes over gloo: every rank watches, rank 0 alone writes, and training stays as it was."""

import copy

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from stabmon import Schedule, watch
from stabmon.nn import Block, SigmoidAttention
from stabmon.store import open_run


def _train(model, rank, folder):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    manager = None
    if folder is not None:
        manager = watch(model, optimizer, dir=folder, name="ddp", console=False, schedule=Schedule(rows=4))
    norms = []
    for step in range(3):
        x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(10 * step + rank))
        model(x).square().mean().backward()
        norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
        optimizer.step()
        optimizer.zero_grad()
    if manager:
        assert not manager.failures
        manager.close()
        assert (manager.path is None) == (rank > 0)
    return norms


def _process(rank, store, folder):
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Sequential(*[Block(8, SigmoidAttention(8, 2, max_length=6)) for _ in range(2)])
    plain = copy.deepcopy(model)
    expected = _train(DistributedDataParallel(plain), rank, None)
    assert _train(DistributedDataParallel(model), rank, folder) == expected
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)
    if rank == 0:
        with open_run(folder / "ddp") as run:
            assert [attention.layer for attention in run.info.model.attentions] == ["0", "1"]
            np.testing.assert_allclose(run.read("total_gradient_norm").values[:, 0], expected, rtol=1e-5)
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")
def test_two_ranks_record_averaged_gradients_once_and_train_the_same(tmp_path):
    multiprocessing.spawn(_process, (tmp_path / "rendezvous", tmp_path / "runs"), nprocs=2)
