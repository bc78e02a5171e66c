"""The overhead benchmark runs and its numbers fit together; how large they are is for the benchmark to say."""

import sys

import pytest
import torch
from typer.testing import CliRunner

from stabmon import config
from stabmon.cli import app
from stabmon.overhead import configured, long_run, long_table, measure, ranks, ranks_table, table
from stabmon.overhead.contenders import contenders
from stabmon.overhead.task import gpt
from stabmon.terminal import Terminal

SMALL = {"model.layers": 1, "model.width": 16, "model.heads": 2, "model.context": 32, "training.batch": 2}


def _gpt(layers=1):
    return gpt("small", torch.device("cpu"), layers=layers, heads=2, width=16, vocabulary=32, shape=(2, 16))


def _own():
    """Contenders that need no other package."""
    return [one for one in contenders() if not one.name.startswith("wandb")]


def _printed(shown):
    terminal = Terminal(width=200)
    with terminal.capture() as printed:
        terminal.print(shown)
    return printed.get()


def test_contenders_are_compared_with_a_plain_training():
    task = configured(config.override(config.load("naive"), SMALL), "cpu")
    found = measure(task, steps=12, rivals=_own())
    assert found["steps"] == 20  # whole windows
    plain, default, every, items = found["rows"]
    assert (plain["ratio_low"], plain["ratio"], plain["ratio_high"]) == (1, 1, 1)
    assert plain["launches"] == 0
    for row in (default, every, items):
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        assert row["milliseconds"] > 0
    assert every["launches"] > items["launches"] > 0
    assert "launches" not in default  # its steps are not alike
    assert "stabmon, every step" in _printed(table(found))


def test_operations_that_a_hook_adds_are_counted():
    plain, items = (one for one in _own() if "stabmon" not in one.name)
    found = measure(_gpt(layers=3), steps=1, rivals=[plain, items])
    assert found["rows"][1]["launches"] == 3 * 3  # detach, norm, item
    assert found["rows"][1]["launched"].keys() == {"aten::detach", "aten::linalg_vector_norm", "aten::item"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own imports are deprecated
def test_compiled_models_are_compared():
    found = measure(_gpt(), steps=1, compiled=True, rivals=_own()[:3])
    assert found["compiled"]
    assert all(row["milliseconds"] > 0 for row in found["rows"])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_wandb_is_watched_beside_it_where_it_is_installed():
    pytest.importorskip("wandb")
    plain, *_, wandb = contenders()
    assert wandb.name == "wandb.watch, every step"
    found = measure(_gpt(), steps=1, rivals=[plain, wandb])
    assert found["rows"][1]["launches"] > 0


@pytest.mark.parametrize("option", [["--model", "gpt-124m"], ["--compiled"], ["--ranks", "2"], ["--steps-long", "10"]])
def test_options_of_overhead_are_refused_without_it(option):
    answer = CliRunner().invoke(app, ["bench", *option])
    assert answer.exit_code == 2
    assert "are options of" in answer.output


@pytest.mark.slow
def test_processes_exchange_their_numbers_at_every_step():
    found = ranks(2, 4, "cpu")
    assert found["layers"] == 4
    assert found["payload_bytes"] > 4 * 4 * 4 * 8  # 4 layers, 4 heads, 8 sums of 4 bytes
    assert 0 < found["reduction_milliseconds"] <= found["reduction_high"]
    assert "2 ranks under DDP on cpu" in _printed(ranks_table(found))


def test_a_long_run_has_a_row_for_each_tenth():
    found = long_run(50)
    assert [row["step"] for row in found["rows"]] == [5, 10, 15, 20, 25, 30, 35, 40, 45, 50]
    assert not found["failures"]
    assert all(row["own_microseconds"] > 0 and row["step_microseconds"] > 0 for row in found["rows"])
    if sys.platform == "linux":
        assert all(row["memory_mib"] > 10 and row["open_files"] > 3 for row in found["rows"])
        files = [row["open_files"] for row in found["rows"]]
        assert max(files) - min(files) < 16, "they do not grow with the steps"
    assert "50 steps" in _printed(long_table(found))
