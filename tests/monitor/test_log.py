"""To which step a logged value belongs, and what a run leaves on disk."""

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stabmon import Schedule, watch
from stabmon.errors import WatchError
from stabmon.hooks.recording import Recording
from stabmon.monitor import between
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


def test_every_loss_that_is_logged_every_ten_steps_is_kept(tiny, tmp_path, loss):
    model = tiny()
    optimizer, losses = torch.optim.SGD(model.parameters(), 0.0), {}
    with watch(model, optimizer, dir=tmp_path, name="run", console=False, schedule=Schedule(dense=20)) as monitor:
        for step in range(60):
            value = loss(model, step)
            value.backward()
            optimizer.step()
            if (step + 1) % 10 == 0:
                losses[step] = float(value.detach())
                monitor.log(loss=value.detach() if step % 20 == 9 else float(value.detach()))
        assert not monitor.failures
    with open_run(tmp_path / "run") as run:
        read = run.read("loss")
    assert dict(zip(read.steps.tolist(), read.values[:, 0].tolist(), strict=True)) == pytest.approx(losses)
    curve = EventAccumulator(str(tmp_path / "run"))
    curve.Reload()
    points = {point.step: point.value for point in curve.Scalars("loss")}
    assert {29, 59} <= points.keys()  # the others may lie too close in time
    assert points == pytest.approx({step: losses[step] for step in points})


def test_the_last_value_of_a_step_counts_between_samples_and_none_is_dropped_for_lack_of_room(
    tiny, quiet, kept, loss, monkeypatch
):
    monkeypatch.setattr(between, "CAPACITY", 3)
    model = tiny()
    with watch(model, schedule=Schedule(dense=1, every=100), log=("loss", "accuracy"), **quiet) as monitor:
        for step in range(5):
            loss(model, step).backward()
            monitor.log(loss=-1)
            monitor.step()
            monitor.log(loss=step, accuracy=torch.tensor(step / 4))
        assert not monitor.failures
    assert kept.between == {(step, "loss"): step for step in range(1, 5)} | {
        (step, "accuracy"): step / 4 for step in range(1, 5)
    }


@pytest.mark.parametrize(
    ("value", "kept_as"), [(1e300, float("inf")), (-(10**400), -float("inf"))], ids=["1e300", "int"]
)
def test_a_number_beyond_float32_is_infinite_in_and_between_samples(tiny, quiet, kept, loss, value, kept_as):
    model = tiny()
    with watch(model, schedule=Schedule(dense=1, every=100), **quiet) as monitor:
        for step in range(2):
            loss(model, step).backward()
            monitor.step()
            monitor.log(loss=value)
        assert not monitor.failures
    assert _losses(kept) == {0: kept_as}
    assert kept.between == {(1, "loss"): kept_as}


def test_a_loss_that_is_only_logged_between_samples_is_judged_by_the_rules(tiny, quiet, loss):
    model = tiny()
    with watch(model, schedule=Schedule(dense=2, every=10), **quiet) as monitor:
        for step in range(41):
            loss(model, step).backward()
            monitor.step()
            if step % 10 == 7:
                monitor.log(loss=float("nan") if step == 27 else 3.0)
        (found,) = (finding for finding in monitor.findings if finding.metric == "loss")
    assert (found.code, found.opened) == ("NUM001", 30)
    assert "loss is NaN at step 27" in found.message
    assert [(cell.step, cell.value) for cell in found.cells if cell.value == 3.0] == [(17, 3.0)]


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
