import pytest
import torch

from stabmon.kernels.hopper import launch, tune
from stabmon.kernels.speed import GRID


def test_the_tables_hold_candidates():
    for dim, plan in launch.TABLE.items():
        assert plan in tune.CANDIDATES[dim]


@pytest.mark.parametrize(
    ("dim", "plan"), [(dim, plan) for dim, plans in tune.CANDIDATES.items() for plan in plans], ids=str
)
def test_a_candidate_fits_the_multiprocessor(dim, plan):
    assert 2 * dim * (3 * plan.rows + 2 * plan.stages * plan.block_k) + 1024 <= 227 * 1024
    groups = plan.consumers + 1
    at_first = 65536 // (128 * groups) // 8 * 8
    assert plan.registers % 8 == 0
    assert plan.consumers * plan.registers + 24 <= groups * at_first
    assert plan.stages >= 2
    assert plan.stages & (plan.stages - 1) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a CUDA device")
def test_without_a_device_it_says_so():
    with pytest.raises(RuntimeError, match="tune needs a CUDA device"):
        tune.tune()


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a CUDA device")
def test_the_command_line_is_read_before_anything_is_timed(capsys):
    with pytest.raises(SystemExit) as stop:
        tune.main(["--help"])
    assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        tune.main([])
    assert stop.value.code == 2
    assert "tune needs a CUDA device" in capsys.readouterr().err


def test_a_wrong_launch_gets_no_speed():
    plan = launch.TABLE[64]
    row = {**GRID[3]._asdict(), "form": "tanh", **plan._asdict(), "error": 1.02, "cudnn": 400.0}
    good, bad = tune.table([row | {"speed": 440.0}, row]).splitlines()
    assert good.startswith("d 64 causal n 2048")
    assert good.endswith("440, cuDNN x1.100")
    assert bad.endswith("wrong")
