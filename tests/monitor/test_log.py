"""To which step a logged value belongs, and what a run leaves on disk."""

import numpy as np
import pytest
import torch

from stabmon import Schedule, watch
from stabmon.errors import WatchError
from stabmon.hooks.recording import Recording
from stabmon.series import is_missing
from stabmon.stats.deferred_writer import DeferredWriter
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


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "NoneType"),
        ("0.5", "str"),
        (np.ones(2), "ndarray"),
        (torch.ones(2), r"a tensor of shape \[2\]"),
        (torch.tensor(1j), "a complex tensor"),
    ],
    ids=["none", "text", "array", "tensor", "complex"],
)
def test_what_is_no_number_is_refused_and_recording_goes_on(tiny, quiet, kept, loss, value, got):
    model = tiny()
    with watch(model, **quiet) as monitor:
        for step in range(2):
            loss(model, step).backward()
            monitor.step()
            with pytest.raises(WatchError, match=f"loss must be a .*number.*, got {got}; log"):
                monitor.log(loss=value)
            monitor.log(loss=np.float32(step))
        assert not monitor.failures
    assert _losses(kept) == {0: 0.0, 1: 1.0}


def test_a_failure_at_the_end_of_a_step_is_reported_once_and_ends_the_measuring(tiny, quiet, kept, loss, monkeypatch):
    model, seen = tiny(), []
    with watch(model, **quiet) as monitor:
        loss(model, 0).backward()
        monitor.step()
        monkeypatch.setattr(Recording, "flush", lambda _: 1 / 0)
        monkeypatch.setattr(DeferredWriter, "power", lambda *given: seen.append(given))
        for step in range(1, 4):
            loss(model, step).backward()
            monitor.step()
            monitor.log(loss=step)
        assert monitor.failures == ("the end of a step: ZeroDivisionError: division by zero",)
    assert len(seen) == 6  # the open step's own hooks: input, output and branch of two blocks
    assert list(kept.rows) == [0]


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


def test_a_resumed_run_goes_on_at_the_next_step_unless_it_says_another(tiny, tmp_path, loss):
    for first_step, steps in ((None, 3), (None, 2), (1, 1)):
        model = tiny()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        resume = (tmp_path / "run").exists()
        with watch(
            model, optimizer, dir=tmp_path, name="run", resume=resume, first_step=first_step, console=False
        ) as monitor:
            for step in range(steps):
                loss(model, step).backward()
                optimizer.step()
        with open_run(tmp_path / "run") as run:
            recorded = run.read("total_gradient_norm").steps.tolist()
        assert recorded == {(None, 3): [0, 1, 2], (None, 2): [0, 1, 2, 3, 4], (1, 1): [0, 1]}[first_step, steps]
        assert monitor.steps == recorded[-1] + 1


def test_a_run_can_be_resumed(tiny, tmp_path, loss):
    model = tiny()
    for first in (0, 2):
        with watch(model, dir=tmp_path, name="one", console=False, resume=first > 0, first_step=first) as monitor:
            for step in range(2):
                loss(model, step).backward()
                monitor.step()
            assert monitor.steps == first + 2
    with open_run(tmp_path / "one") as run:
        assert list(run.read("row_mass").steps) == [0, 1, 2, 3]
