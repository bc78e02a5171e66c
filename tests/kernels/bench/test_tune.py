import pytest
import torch

from stabmon.kernels.bench import tune
from stabmon.kernels.bench.speed import GRID
from stabmon.kernels.hopper.forward_launch import TABLE


def test_the_tables_hold_candidates():
    for dim, config in TABLE.items():
        assert config in tune.CANDIDATES[dim]


@pytest.mark.parametrize(
    ("dim", "config"), [(dim, config) for dim, configs in tune.CANDIDATES.items() for config in configs], ids=str
)
def test_a_candidate_fits_the_multiprocessor(dim, config):
    assert 2 * dim * (3 * config.rows + 2 * config.stages * config.block_k) + 1024 <= 227 * 1024
    groups = config.consumers + 1
    at_first = 65536 // (128 * groups) // 8 * 8
    assert config.registers % 8 == 0
    assert config.consumers * config.registers + 24 <= groups * at_first
    assert config.stages >= 2
    assert config.stages & (config.stages - 1) == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="concerns machines without a CUDA device")
def test_without_a_device_the_command_says_so():
    with pytest.raises(RuntimeError, match="tune needs a CUDA device"):
        tune.tune()


@pytest.mark.skipif(torch.cuda.is_available(), reason="concerns machines without a CUDA device")
def test_the_command_line_is_read_before_anything_is_timed(capsys):
    with pytest.raises(SystemExit) as stop:
        tune.main(["--help"])
    assert stop.value.code == 0
    with pytest.raises(SystemExit) as stop:
        tune.main([])
    assert stop.value.code == 2
    assert "tune needs a CUDA device" in capsys.readouterr().err


def test_a_wrong_configuration_gets_no_speed():
    config = TABLE[64]
    row = {**GRID[3]._asdict(), "form": "tanh", **config._asdict(), "error": 1.02, "cudnn": 400.0}
    good, bad = tune.table([row | {"speed": 440.0}, row]).splitlines()
    assert good.startswith("d 64 causal n 2048")
    assert good.endswith("440, cuDNN x1.100")
    assert bad.endswith("wrong")
