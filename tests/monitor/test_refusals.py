"""Wrong use: each message says what was expected, what came and what to do."""

import threading

import pytest
import torch
from torch import nn

from stabmon import watch
from stabmon.errors import ArgumentError, ModelError, StoreError, WatchError
from stabmon.store import open_run


def test_watching_twice_is_refused_until_the_first_is_closed(tiny, quiet):
    model = tiny()
    with watch(model, **quiet):
        with pytest.raises(WatchError, match="watched already"):
            watch(model, **quiet)
        with pytest.raises(WatchError, match="watched already"):
            watch(model.layers[0], **quiet)
    with watch(model, **quiet):
        pass


def test_what_is_no_model_or_no_optimizer_is_refused_before_anything_is_written(tiny, tmp_path):
    for model, optimizer, message in (
        ("model.pt", None, r"model must be a torch\.nn\.Module, got str"),
        (tiny(), 1e-3, "optimizer must be a torch optimizer, or a sequence of them, got float; leave it out"),
    ):
        with pytest.raises(WatchError, match=message):
            watch(model, optimizer, dir=tmp_path / "runs", console=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": None}, "schedule must be a stabmon.Schedule, got None"),
        ({"first_step": -1}, "first_step must be a whole number of at least 0, got -1"),
        ({"first_step": 1.5}, "first_step must be a whole number of at least 0, got 1.5"),
        ({"scaler": 3}, "scaler must be a torch.amp.GradScaler, got 3"),
        ({"scaler": torch.nn.Linear(1, 1)}, "scaler must be a torch.amp.GradScaler, got Linear"),
        ({"sinks": [object()]}, r"sinks must hold objects with a name and the methods .*, got object without start"),
        ({"sinks": 3}, "sinks must be a sequence, got 3"),
        ({"ignore": "CFG001"}, "ignore must be a sequence, got 'CFG001'"),
        ({"ignore": [3]}, "ignore must be a sequence of rules' codes, got 3"),
        ({"resume": True, "name": None}, "resume needs the name of the run to go on with"),
        ({"name": 3}, "name must be letters"),
        ({"name": 121 * "é"}, "name must have at most 240 bytes, got 242"),
        ({"log": ("\ud800",)}, "log must be a sequence of names of printable letters"),
        ({"log": (3,)}, "log must be a sequence of names of printable letters, got 3"),
    ],
    ids=lambda given: "" if isinstance(given, str) else next(iter(given)),
)
def test_a_wrong_argument_is_refused_before_anything_is_made(options, message, tiny, tmp_path):
    model, threads = tiny(), threading.active_count()
    with pytest.raises(ArgumentError, match=message) as raised:
        watch(model, **{"dir": tmp_path / "runs", "name": "one", "console": False} | options)
    assert isinstance(raised.value, ValueError)
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == threads
    watch(model, dir=tmp_path / "runs", name="one", console=False).close()


def test_the_optimizer_of_another_model_is_refused(tiny, tmp_path):
    model, other = tiny(), tiny()
    with pytest.raises(ArgumentError, match=r"hold parameters of this Tiny, got one whose .* another model's"):
        watch(model, torch.optim.SGD(other.parameters(), 0.1), dir=tmp_path / "runs", console=False)
    assert not list(tmp_path.iterdir())
    watch(model, torch.optim.SGD(model.head.parameters(), 0.1), dir=None, console=False).close()


def _refuse(info, layout):
    raise StoreError("not like this")


def test_a_sink_that_refuses_its_start_leaves_no_run_where_watch_has_a_batch(tiny, tmp_path, kept):
    kept.start = _refuse
    model, threads, batch = tiny(), threading.active_count(), torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(StoreError, match="not like this"):
        watch(model, dir=tmp_path / "runs", name="one", console=False, sinks=[kept], batch=batch)
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == threads
    watch(model, dir=tmp_path / "runs", name="one", console=False, batch=batch).close()


def test_a_sink_that_refuses_its_start_in_the_training_is_left_out(tiny, tmp_path, kept, loss):
    kept.start = _refuse
    model = tiny()
    with watch(model, dir=tmp_path, name="one", console=False, sinks=[kept]) as monitor:
        loss(model, 0).backward()
        monitor.step()
        assert monitor.failures == ("kept: not like this; the run goes on without it",)
    with open_run(tmp_path / "one") as run:
        assert run.sizes.samples == 1


def test_hooks_that_cannot_be_put_on_leave_no_run(tiny, tmp_path, kept, monkeypatch):
    def refuse(*_):
        raise KeyError("no hook for you")

    model, threads = tiny(), threading.active_count()
    hooks = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monkeypatch.setattr(optimizer, "register_step_post_hook", refuse)
    with pytest.raises(KeyError, match="no hook for you"):
        watch(model, optimizer, dir=tmp_path / "runs", name="one", console=False, sinks=[kept])
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == threads
    assert hooks == sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    watch(model, dir=tmp_path / "runs", name="one", console=False).close()


def test_a_model_without_attention_is_refused_where_watch_has_a_batch(quiet):
    with pytest.raises(ModelError, match="found no attention in Linear"):
        watch(nn.Linear(2, 2), batch=torch.zeros(1, 2), **quiet)
    watch(nn.Linear(2, 2), **quiet).close()


def test_a_name_that_is_taken_is_refused_before_the_training(tiny, tmp_path):
    options = {"dir": tmp_path, "name": "one", "console": False}
    with watch(tiny(), **options), pytest.raises(StoreError, match="being written by another monitor"):
        watch(tiny(), **options)
    with pytest.raises(StoreError, match="the run 'one' exists already"):
        watch(tiny(), **options)


def test_a_name_that_was_not_announced_is_refused(tiny, quiet):
    with watch(tiny(), **quiet) as monitor, pytest.raises(WatchError, match="cannot log accuracy: announced were loss"):
        monitor.log(accuracy=1.0)


def test_a_tensor_of_several_numbers_is_refused(tiny, quiet):
    with watch(tiny(), **quiet) as monitor, pytest.raises(WatchError, match=r"got a tensor of shape \[3\]"):
        monitor.log(loss=torch.zeros(3))


@pytest.mark.parametrize(("log", "message"), [("loss", "must be a sequence"), (["row_mass"], "records itself")])
def test_log_names_must_be_new_names_in_a_sequence(tiny, quiet, log, message):
    with pytest.raises(WatchError, match=message):
        watch(tiny(), log=log, **quiet)


def test_step_is_refused_where_the_optimizer_is_known(tiny, quiet):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, **quiet) as monitor, pytest.raises(WatchError, match="without an optimizer"):
        monitor.step()


def test_a_closed_monitor_refuses(tiny, quiet):
    with watch(tiny(), **quiet) as monitor:
        pass
    monitor.close()
    with pytest.raises(WatchError, match="closed"):
        monitor.log(loss=1.0)
    with pytest.raises(WatchError, match="closed"):
        monitor.step()


def test_a_folder_that_cannot_be_made_is_refused_before_training(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    model = tiny()
    with pytest.raises(StoreError):
        watch(model, dir=tmp_path / "file", console=False)
    with watch(model, dir=None, console=False):
        pass


def test_another_number_of_heads_than_in_the_first_pass_is_reported(tiny, quiet, caplog):
    model = tiny()
    with watch(model, **quiet) as monitor:
        for heads in (4, 2):
            model.layers[0].attention.heads, model.layers[0].attention.head_dim = heads, 16 // heads
            model.layers[0].attention.bias = torch.zeros(heads)
            model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
            monitor.step()
    assert "has 2 heads, had 4 in the first pass" in caplog.text
    assert len(monitor.failures) == 1


@pytest.mark.parametrize("name", ["a/b", "..", "", "-x", "x\n", "[/red]"])
def test_a_name_that_leaves_the_folder_is_refused(tiny, quiet, name):
    with pytest.raises(WatchError, match=r"name must be letters, digits and '_'.*the run's folder"):
        watch(tiny(), name=name, **quiet)
