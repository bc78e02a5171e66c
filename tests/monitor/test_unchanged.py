"""Attaching never changes a number, and nothing is left behind."""

import copy
import gc
import io
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from stabmon import Schedule, watch
from stabmon.store import open_run


def _train(model, optimizer, loss, monitor=None, steps=5):
    torch.manual_seed(7)
    losses = []
    for step in range(steps):
        value = loss(model, step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        if monitor is not None:
            monitor.log(loss=value)
        losses.append(value.detach())
    return losses, torch.get_rng_state()


@pytest.mark.parametrize("bias", ["length", "learnable", 0.0])
def test_training_has_the_same_bits_with_the_monitor(tiny, loss, quiet, kept, bias):
    plain, watched = tiny(bias=bias), tiny(bias=bias)
    alone = _train(plain, torch.optim.AdamW(plain.parameters(), 1e-2), loss)
    optimizer = torch.optim.AdamW(watched.parameters(), 1e-2)
    with watch(watched, optimizer, schedule=Schedule(rows=5), **quiet) as monitor:
        seen = _train(watched, optimizer, loss, monitor)
    assert all(torch.equal(a, b) for a, b in zip(alone[0], seen[0], strict=True))
    assert torch.equal(alone[1], seen[1])
    for (name, a), b in zip(plain.named_parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert sorted(kept.rows) == [0, 1, 2, 3, 4]
    assert not monitor.failures


def test_hooks_are_gone_after_the_block(tiny, quiet, count_hooks):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, **quiet):
        assert count_hooks(model) > 0
        assert count_hooks(optimizer) > 0
    assert count_hooks(model) == count_hooks(optimizer) == 0


def _failing_loop(model, quiet, loss):
    with watch(model, **quiet):
        loss(model, 0).backward()
        yield 1 / 0


def test_an_exception_in_the_block_passes_through_and_the_run_has_failed(tiny, quiet, kept, loss, count_hooks):
    model = tiny()
    loop = _failing_loop(model, quiet, loss)
    with pytest.raises(ZeroDivisionError):
        next(loop)
    assert count_hooks(model) == 0
    assert kept.state == "failed"


def test_an_exception_inside_the_forward_gives_the_observer_slot_back(tiny, quiet):
    from stabmon.kernels import observe

    model = tiny()
    model.layers[1].attention.out.register_forward_pre_hook(lambda *_: 1 / 0)
    with watch(model, **quiet):
        with pytest.raises(ZeroDivisionError):
            model(torch.zeros(2, 4, dtype=torch.long))
        assert observe.current() is None


def test_a_closed_monitor_does_not_keep_the_model_alive(tiny, quiet, loss):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, **quiet) as monitor:
        loss(model, 0).backward()
        optimizer.step()
    gone = weakref.ref(model)
    del model, optimizer
    gc.collect()
    assert gone() is None
    assert monitor.steps == 1


def test_the_state_dict_is_the_models_own(tiny, quiet):
    model = tiny()
    names = list(model.state_dict())
    with watch(model, **quiet):
        assert list(model.state_dict()) == names


def test_a_copy_of_a_watched_model_works_and_is_not_watched(tiny, quiet, kept, loss):
    model = tiny()
    with watch(model, **quiet) as monitor:
        loss(model, 0).backward()
        monitor.step()
        twin = copy.deepcopy(model)
        stored = io.BytesIO()
        torch.save(model, stored)
        loss(twin, 0).backward()
        monitor.step()
        stored.seek(0)
        loaded = torch.load(stored, weights_only=False)
        loss(loaded, 0).backward()
    assert set(kept.rows) == {0, 1}
    assert (kept.of("row_mass", step=1).view("uint32") == 0x7FC05AB5).all()
    with watch(twin, dir=None, console=False):
        pass


def _operations(model, loss):
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        loss(model, 0).backward()
    return {event.key: event.count for event in profiled.key_averages() if event.key.startswith("aten::")}


def test_steps_that_the_schedule_skips_run_the_operations_of_the_model_alone(tiny, quiet, kept, loss):
    model = tiny()
    loss(model, 0).backward()  # later passes add to these gradients
    alone = _operations(model, loss)
    with watch(model, schedule=Schedule(dense=1, every=3), **quiet) as monitor:
        for step in range(7):
            assert (_operations(model, loss) == alone) == (step not in (0, 3, 6))
            monitor.step()
    assert sorted(kept.rows) == [0, 3, 6]


def test_a_failure_in_a_hook_is_reported_once_and_training_goes_on(tiny, quiet, kept, loss, monkeypatch, caplog):
    monkeypatch.setattr("stabmon.stats.deferred_writer.DeferredWriter.call", lambda *_: 1 / 0)
    model = tiny()
    with watch(model, **quiet) as monitor:
        for step in range(3):
            loss(model, step).backward()
            monitor.step()
    assert [record for record in caplog.records if "layers.0.attention" in record.message][1:] == []
    assert "ZeroDivisionError" in caplog.text
    assert len(monitor.failures) == 2  # one a layer
    assert kept.of("residual_in", step=2).min() > 0


@pytest.mark.slow
def test_a_monitor_that_was_never_closed_ends_its_run_when_the_program_ends(tmp_path):
    script = f"""
import torch
from torch import nn
from stabmon import watch
from stabmon.nn import Block, SigmoidAttention
model = nn.Sequential(Block(8, SigmoidAttention(8, 2, max_length=4)))
monitor = watch(model, dir={str(tmp_path)!r}, name="left", console=False)
model(torch.randn(1, 4, 8)).sum().backward()
monitor.step()
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    with open_run(tmp_path / "left") as run:
        assert run.heartbeat().state == "finished"
        assert list(run.read("row_mass").steps) == [0]


def test_steps_in_a_pause_are_neither_counted_nor_hooked(tiny, quiet, kept, loss, count_hooks):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters())

    def step():
        loss(model, 0).backward()
        optimizer.step()

    with watch(model, optimizer, **quiet) as monitor:
        step()
        with monitor.paused():
            assert count_hooks(model) == 0
            step()
        step()
        assert monitor.steps == 2
    assert sorted(kept.rows) == [0, 1]


def test_a_monitor_that_is_forgotten_ends_its_run_when_it_is_collected(tiny, tmp_path, loss):
    before, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monitor = watch(model, optimizer, dir=tmp_path, name="left", console=False)
    loss(model, 0).backward()
    optimizer.step()
    del model, optimizer, monitor
    gc.collect()
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
    with open_run(tmp_path / "left") as run:
        assert run.heartbeat().state == "finished"
        assert list(run.read("row_mass").steps) == [0]
