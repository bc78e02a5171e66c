"""torch.compile: one graph, no break, the same numbers, when attached first; a clear refusal when attached after."""

import copy
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from stabmon import Schedule, watch
from stabmon.errors import WatchError
from stabmon.series import is_missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),  # the compiler's own imports
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),  # dynamo looks at it
]


def _train(model, run, loss, quiet, kept, schedule, steps=4):
    kept.rows.clear()
    model.dropout.p = 0.0
    with watch(model, schedule=schedule, **quiet) as monitor:
        for step in range(steps):
            loss(run, step).backward()
            monitor.step()
            model.zero_grad()
        assert not monitor.failures
        overhead = monitor.overhead
    return dict(kept.rows), overhead


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_a_model_watched_before_compiling_is_one_graph_with_the_same_numbers(tiny, quiet, kept, loss):
    schedule = Schedule(rows=1000)
    plain = tiny()
    expected, _ = _train(plain, plain, loss, quiet, kept, schedule)
    model = tiny()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    rows, overhead = _train(model, compiled, loss, quiet, kept, schedule)
    assert counter.frame_count == 1
    for step, row in rows.items():
        np.testing.assert_allclose(row, expected[step], rtol=1e-5, atol=1e-6)
    assert overhead is None


def test_skipped_steps_need_one_more_graph_and_no_more(tiny, quiet, kept, loss):
    model = tiny()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    rows, _ = _train(model, compiled, loss, quiet, kept, Schedule(dense=0, every=2), steps=6)
    assert counter.frame_count == 2
    assert sorted(rows) == [0, 2, 4]
    assert kept.of("row_mass", step=4).min() > 0


def test_checkpointing_inside_a_compiled_model_is_counted_once(tiny, quiet, kept, loss, monkeypatch):
    monkeypatch.setattr(torch._dynamo.config, "skip_fwd_side_effects_in_bwd_under_checkpoint", True)
    schedule = Schedule(rows=1000)
    plain = tiny()
    expected, _ = _train(plain, plain, loss, quiet, kept, schedule, steps=2)
    model = tiny()

    def forward(tokens):
        x = model.embedding(tokens)
        for block in model.layers:
            x = checkpoint(block, x, use_reentrant=False)
        return model.head(x)

    model.forward = forward
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    rows, _ = _train(model, compiled, loss, quiet, kept, schedule, steps=2)
    assert counter.frame_count == 1
    for step, row in rows.items():
        np.testing.assert_allclose(row, expected[step], rtol=1e-5, atol=1e-6)


def test_blocks_compiled_one_by_one_share_their_graph_as_without_the_monitor(tiny, quiet, kept, loss):
    def deep():
        model = tiny()
        model.dropout.p = 0.0
        model.layers = nn.ModuleList(copy.deepcopy(model.layers[0]) for _ in range(12))
        return model

    schedule = Schedule(rows=1000)
    plain = deep()
    expected, _ = _train(plain, plain, loss, quiet, kept, schedule, steps=2)
    kept.rows.clear()
    graphs = []
    for watched in (False, True):
        torch.compiler.reset()
        model, counter = deep(), CompileCounterWithBackend("eager")
        with watch(model, schedule=schedule, **quiet) if watched else nullcontext() as monitor:
            for block in model.layers:
                block.compile(backend=counter, fullgraph=True)
            for step in range(2):
                loss(model, step).backward()
                model.zero_grad()
                if monitor:
                    monitor.step()
            assert not (monitor and monitor.failures)
        graphs.append(counter.frame_count)
    assert graphs[0] == graphs[1]
    for step, row in expected.items():
        np.testing.assert_allclose(kept.rows[step], row, rtol=1e-5, atol=1e-6)


def test_hooks_that_come_back_after_a_pause_need_no_other_graph(tiny, quiet, loss):
    model = tiny()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with watch(model, **quiet) as monitor:
        loss(compiled, 0).backward()
        monitor.step()
        graphs = counter.frame_count
        with monitor.paused():
            pass
        loss(compiled, 1).backward()
        monitor.step()
    assert counter.frame_count == graphs == 1


FRESH = """
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from stabmon import watch
from stabmon.nn import Block, SigmoidAttention

model = torch.nn.Sequential(Block(16, SigmoidAttention(16, 2, max_length=8)))
counter = CompileCounterWithBackend("eager")
compiled = torch.compile(model, backend=counter)
with watch(model, dir=None, console=False) as monitor:
    for _ in range(3):
        compiled(torch.randn(2, 8, 16)).sum().backward()
        monitor.step()
print(counter.frame_count)
"""


def test_a_fresh_process_compiles_a_watched_model_once():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", FRESH], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["1"]


def test_lengths_that_vary_share_a_graph_and_are_counted_as_they_are(tiny, quiet, kept):
    model = tiny(max_length=64)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, dynamic=True)
    with watch(model, schedule=Schedule(rows=1), **quiet) as monitor:
        for length in (24, 32, 40):
            tokens = torch.randint(32, (3, length))
            compiled(tokens).sum().backward()
            monitor.step()
        assert not monitor.failures
    assert counter.frame_count == 1
    assert [kept.of("keys", step=step).tolist() for step in range(3)] == [[24, 24], [32, 32], [40, 40]]


def _optimized(model, loss, compiled, monitor=None, steps=3):
    """Train with an optimizer whose step is compiled or not, and return the compiler's graphs of it."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    counter = CompileCounterWithBackend("eager")
    take = torch.compile(optimizer.step, backend=counter) if compiled else optimizer.step
    with monitor(optimizer) if monitor else nullcontext() as watching:
        for step in range(steps):
            value = loss(model, step)
            value.backward()
            take()
            optimizer.zero_grad()
            if watching:
                watching.log(loss=value)
        if watching:
            assert watching.steps == steps
            assert not watching.failures
    return counter.frame_count


def test_a_compiled_optimizer_keeps_its_graph_and_ends_steps_as_another_does(tiny, quiet, kept, loss):
    plain = _optimized(tiny(), loss, True)
    rows = []
    for compiled in (False, True):
        torch.compiler.reset()
        torch.manual_seed(0)
        kept.rows.clear()
        model = tiny()
        graphs = _optimized(model, loss, compiled, lambda optimizer, model=model: watch(model, optimizer, **quiet))
        rows.append(dict(kept.rows))
    assert graphs == plain
    assert sorted(rows[1]) == [0, 1, 2]
    for step, row in rows[0].items():
        np.testing.assert_allclose(rows[1][step], row, rtol=1e-5, atol=1e-6)


def test_a_pass_that_begins_in_a_graph_before_its_step_has_ended_is_not_recorded_and_said(tiny, quiet, kept, loss):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, **quiet) as monitor:
        compiled, take = (torch.compile(one, backend="eager") for one in (model, optimizer.step))
        for step in range(2):
            loss(compiled, step).backward()
            take()
            optimizer.zero_grad()
    assert any("Call monitor.log(loss=...) after each step" in text for text in monitor.failures)
    assert kept.of("row_mass", step=0).min() > 0
    assert is_missing(kept.of("row_mass", step=1)).all()


def test_a_compiled_training_step_goes_on_and_is_counted(tiny, quiet, kept, loss):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    @torch.compile(backend="eager")
    def take(tokens):
        value = model(tokens).square().mean()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value

    tokens = torch.randint(32, (3, 12))
    with watch(model, optimizer, batch=tokens, **quiet) as monitor:
        for _ in range(3):
            monitor.log(loss=take(tokens))
        assert monitor.steps == 3
        assert not monitor.failures
    assert kept.of("row_mass", step=2).min() > 0
    assert kept.of("total_gradient_norm", step=2) > 0


@pytest.mark.slow
def test_a_training_in_compiled_autograd_goes_on_and_what_is_missing_is_named(tiny, quiet, loss):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with torch._dynamo.config.patch(compiled_autograd=True), watch(model, optimizer, **quiet) as monitor:
        for step in range(2):
            torch.compile(lambda step=step: loss(model, step).backward(), backend="eager")()
            optimizer.step()
            monitor.log(loss=0.0)
        assert monitor.steps == 2
    said = {text.partition(":")[0] for text in monitor.failures}
    assert said == {"no attention is recorded", "no gradient was recorded at step 0"}


@pytest.mark.parametrize("compiled_in_place", [False, True])
def test_watching_after_compiling_is_refused(tiny, quiet, compiled_in_place):
    model = tiny()
    if compiled_in_place:
        model.layers[0].compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    with pytest.raises(WatchError, match="watch before compiling"):
        watch(model, **quiet)
