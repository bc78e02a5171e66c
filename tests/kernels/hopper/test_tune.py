import pytest
import torch

from stabmon.kernels.hopper import launch, tune
from stabmon.kernels.speed import GRID


def test_the_tables_hold_candidates():
    for (dim, _), plan in launch.TABLE.items():
        assert plan in tune.CANDIDATES[dim]
    for dim, plan in launch.LONG_CAUSAL.items():
        assert plan in tune.CANDIDATES[dim]


@pytest.mark.parametrize(
    ("dim", "plan"), [(dim, plan) for dim, plans in tune.CANDIDATES.items() for plan in plans], ids=str
)
def test_a_candidate_fits_the_multiprocessor(dim, plan):
    assert 2 * dim * (3 * plan.rows + 2 * plan.stages * plan.block_k) + 1024 <= 227 * 1024
    assert 128 * (plan.consumers * plan.registers + 24) <= 65536


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a CUDA device")
def test_without_a_device_it_says_so():
    with pytest.raises(RuntimeError, match="tune needs a CUDA device"):
        tune.tune()


def test_a_wrong_launch_gets_no_speed():
    plan = launch.TABLE[64, True]
    row = {**GRID[3]._asdict(), "form": "tanh", **plan._asdict(), "error": 1.02, "cudnn": 400.0}
    good, bad = tune.table([row | {"speed": 440.0}, row]).splitlines()
    assert good.startswith("d 64 causal n 2048")
    assert good.endswith("440, cuDNN x1.100")
    assert bad.endswith("wrong")
