"""Attention is looked for right before the first training pass, and the run begins when the first step ends."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import watch
from stabmon.nn import Block, SigmoidAttention
from stabmon.series import is_missing
from stabmon.store import FILE
from tests.watched_model import LENGTH, WIDTH, tokens


class Wrapped(nn.Module):
    """Calls the model that it holds, by keyword."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *, tokens):
        return self.inner(tokens)


def whole(kept, step=0):
    """Return whether every attention of the tiny model was measured at a step."""
    return kept.of("row_mass", step=step).shape == (8,) and not is_missing(kept.of("row_mass", step=step)).any()


def test_the_map_is_empty_until_the_first_training_pass(tiny, tmp_path, loss):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, optimizer, dir=tmp_path, name="one", console=False) as monitor:
        with torch.no_grad():
            loss(model, 0)
        model.eval()
        loss(model, 0)
        assert monitor.map.attentions == ()
        loss(model.train(), 0).backward()
        assert [attention.layer for attention in monitor.map.attentions] == ["layers.0", "layers.1"]
        assert not (monitor.path / FILE).exists()
        optimizer.step()
        assert (monitor.path / FILE).exists()
    assert not monitor.failures


def test_with_a_batch_the_map_and_the_run_are_there_at_once(tiny, tmp_path):
    model = tiny()
    monitor = watch(model, dir=tmp_path, name="one", console=False, batch={"tokens": tokens(0)})
    assert len(monitor.map.attentions) == 2
    assert (monitor.path / FILE).exists()
    monitor.close()


def test_the_hooks_of_the_called_module_itself_see_the_first_pass(quiet, kept):
    block = Block(WIDTH, SigmoidAttention(WIDTH, 4, max_length=LENGTH))
    x = torch.randn(2, LENGTH, WIDTH)
    with watch(block, **quiet) as monitor:
        block(x).sum().backward()
        monitor.step()
    np.testing.assert_allclose(kept.of("residual_in"), x.square().mean().sqrt(), rtol=1e-5)


def test_parts_that_are_called_one_by_one_are_all_recorded(tiny, quiet, kept):
    model = tiny()
    with watch(model, **quiet) as monitor:
        for step in range(2):
            x = model.embedding(tokens(step))
            for layer in model.layers:
                x = layer(x)
                monitor.log(loss=step + 0.5)
            model.head(x).sum().backward()
            monitor.step()
        assert not monitor.failures
    assert whole(kept, 0)
    assert whole(kept, 1)
    assert [kept.of("loss", step=step) for step in range(2)] == [0.5, 1.5]


def test_the_hooks_that_wait_are_gone_from_the_pass_itself(tiny, quiet, count_hooks, loss):
    model, seen = tiny(), []
    with watch(model, **quiet):
        loss(model, 0)
        attached = count_hooks(model)
    with watch(model, **quiet):
        assert count_hooks(model) > 0
        handle = model.dropout.register_forward_hook(lambda *_: seen.append(count_hooks(model)))
        loss(model, 0)
        handle.remove()
    assert seen[-1] == attached + 1, "the first is the scan's own"
    assert count_hooks(model) == 0


def test_a_pause_before_the_first_pass_hides_it(tiny, quiet, kept, loss, count_hooks):
    model = tiny()
    with watch(model, **quiet) as monitor:
        with monitor.paused():
            assert count_hooks(model) == 0
            loss(model, 0).backward()
        assert monitor.map.attentions == ()
        loss(model, 1).backward()
        monitor.step()
    assert whole(kept)


def test_a_monitor_that_is_forgotten_before_its_first_pass_leaves_nothing(tiny, tmp_path, count_hooks):
    model = tiny()
    watch(model, dir=tmp_path / "runs", console=False)
    gc.collect()
    assert count_hooks(model) == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before watch", "after watch"])
@pytest.mark.parametrize("wrapper", [lambda model: model, Wrapped, nn.Sequential], ids=["bare", "wrapped", "torch's"])
def test_a_model_inside_what_is_compiled_is_recorded(tiny, quiet, kept, wrapper, when):
    torch.compiler.reset()
    model = tiny()
    compiled = torch.compile(wrapper(model), backend="eager", fullgraph=True) if when == "before watch" else None
    with watch(model, **quiet) as monitor:
        if compiled is None:
            compiled = torch.compile(wrapper(model), backend="eager", fullgraph=True)
        for step in range(2):
            given = {"tokens": tokens(step)} if wrapper is Wrapped else None
            (compiled(**given) if given else compiled(tokens(step))).sum().backward()
            monitor.step()
        assert not monitor.failures
    assert whole(kept, 0)
    assert whole(kept, 1)
    torch.compiler.reset()
