"""To which step a logged value belongs, and what a run leaves on disk."""

import pytest
import torch

from stabmon import Schedule, watch
from stabmon.series import is_missing
from stabmon.store import open_run


def _losses(kept):
    return {
        step: float(kept.of("loss", step=step)[0])
        for step in kept.rows
        if not is_missing(kept.of("loss", step=step)).any()
    }


@pytest.mark.parametrize("tensor", [False, True])
def test_a_value_logged_after_the_step_belongs_to_it(tiny, quiet, kept, loss, tensor):
    model = tiny()
    with watch(model, **quiet) as monitor:
        for step in range(3):
            loss(model, step).backward()
            monitor.step()
            monitor.log(loss=torch.tensor(float(step)) if tensor else step)
    assert _losses(kept) == {0: 0.0, 1: 1.0, 2: 2.0}


def test_a_value_logged_before_the_step_belongs_to_it(tiny, quiet, kept, loss):
    model = tiny()
    with watch(model, **quiet) as monitor:
        for step in range(3):
            value = loss(model, step)
            monitor.log(loss=step)
            value.backward()
            monitor.step()
    assert _losses(kept) == {0: 0.0, 1: 1.0, 2: 2.0}


def test_values_of_skipped_steps_are_not_given_to_others(tiny, quiet, kept, loss):
    model = tiny()
    with watch(model, schedule=Schedule(dense=0, every=2), **quiet) as monitor:
        for step in range(4):
            value = loss(model, step)
            monitor.log(loss=step)
            value.backward()
            monitor.step()
    assert _losses(kept) == {0: 0.0, 2: 2.0}


def test_several_names_can_be_logged(tiny, quiet, kept, loss):
    model = tiny()
    with watch(model, log=("loss", "accuracy"), **quiet) as monitor:
        loss(model, 0).backward()
        monitor.step()
        monitor.log(loss=1.0, accuracy=0.5)
    assert kept.of("accuracy") == 0.5


def test_a_run_with_default_sinks_is_on_disk_when_the_block_ends(tiny, tmp_path, loss, capsys):
    model = tiny(bias=4.0, max_length=4096)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, dir=tmp_path, name="first", config={"seed": 0}) as monitor:
        for step in range(3):
            value = loss(model, step)
            value.backward()
            optimizer.step()
            monitor.log(loss=value)
    assert "layers.1" in capsys.readouterr().err
    assert monitor.path == tmp_path / "first"
    assert 0 < monitor.overhead < 1
    with open_run(monitor.path) as run:
        assert run.heartbeat().state == "finished"
        assert run.info.config == {"seed": 0}
        read = run.read("row_mass")
        assert list(read.steps) == [0, 1, 2]
        assert read.values.shape == (3, 8)


def test_a_run_can_be_gone_on_with(tiny, tmp_path, loss):
    model = tiny()
    for first in (0, 2):
        with watch(model, dir=tmp_path, name="one", console=False, resume=first > 0, first_step=first) as monitor:
            for step in range(2):
                loss(model, step).backward()
                monitor.step()
            assert monitor.steps == first + 2
    with open_run(tmp_path / "one") as run:
        assert list(run.read("row_mass").steps) == [0, 1, 2, 3]
