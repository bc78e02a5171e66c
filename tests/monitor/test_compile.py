"""torch.compile: one graph, no break, the same numbers, when attached first; a clear refusal when attached after."""

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

from stabmon import Schedule, watch
from stabmon.errors import WatchError

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("compiled_in_place", [False, True])
def test_watching_after_compiling_is_refused(tiny, quiet, compiled_in_place):
    model = tiny()
    if compiled_in_place:
        model.layers[0].compile(backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    with pytest.raises(WatchError, match="watch before compiling"):
        watch(model, **quiet)
