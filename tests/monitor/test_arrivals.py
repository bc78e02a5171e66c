"""A number that was to be recorded and was not is named, with the likely reason: nothing is missing in silence."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import Schedule, watch
from stabmon.store import open_run
from tests.watched_model import tokens


def train(model, loss, monitor, *, optimizer=None, steps=3):
    for step in range(steps):
        value = loss(model, step)
        value.backward()
        if optimizer is None:
            monitor.step()
        else:
            optimizer.step()
        monitor.log(loss=step)
        model.zero_grad()


def losses(kept):
    return [float(kept.of("loss", step=step)[0]) for step in sorted(kept.rows)]


def test_a_training_in_eval_mode_is_named_and_its_run_metrics_are_recorded(tiny, quiet, kept, loss, caplog):
    model = tiny().eval()
    with watch(model, **quiet) as monitor:
        train(model, loss, monitor)
    (said,) = monitor.failures
    assert "no attention is recorded: Tiny runs in eval mode; call train() on it" in said
    assert caplog.text.count("runs in eval mode") == 1
    assert losses(kept) == [0, 1, 2]
    assert (kept.of("total_gradient_norm") > 0).all()


def test_a_part_in_eval_mode_is_named(tiny, quiet, kept, loss):
    model = tiny()
    model.layers[1].eval()
    with watch(model, **quiet) as monitor:
        train(model, loss, monitor)
    (said,) = monitor.failures
    assert said.startswith("no attention was recorded of layers.1: in eval mode at step 0")
    assert np.isfinite(kept.of("row_mass", "layers.0")).all()


def test_a_part_that_does_not_run_any_more_is_named(tiny, quiet, loss):
    model = tiny()
    with watch(model, batch=tokens(0), **quiet) as monitor:
        model.layers[1].forward = lambda x: x
        train(model, loss, monitor)
    (said,) = monitor.failures
    assert said.startswith("no attention was recorded of layers.1 at step 0: it did not run")


def test_a_model_without_attention_is_named_and_its_run_metrics_are_recorded(quiet, kept):
    model = nn.Linear(4, 4)
    with watch(model, **quiet) as monitor:
        for step in range(2):
            model(torch.ones(1, 4)).sum().backward()
            monitor.step()
            monitor.log(loss=step)
    (said,) = monitor.failures
    assert said.startswith("no attention is recorded: found no attention in Linear")
    assert losses(kept) == [0, 1]
    np.testing.assert_allclose(kept.of("total_gradient_norm"), np.sqrt(4 * 4 + 4), rtol=1e-6)


@pytest.mark.parametrize(
    ("optimizer", "said"),
    [(False, r"call monitor.step\(\) after each step"), (True, "the optimizer that watch was given took none")],
    ids=["step forgotten", "optimizer made anew"],
)
def test_steps_that_are_never_counted_are_named(tiny, tmp_path, loss, optimizer, said):
    model = tiny()
    given, used = (torch.optim.SGD(model.parameters(), 0.1) for _ in range(2))
    with watch(model, given if optimizer else None, dir=tmp_path, name="one", console=False) as monitor:
        for step in range(3):
            loss(model, step).backward()
            used.step()
    assert len(monitor.failures) == 1
    assert re.search(f"no step was recorded: .*{said}", monitor.failures[0])
    with open_run(tmp_path / "one") as run:
        assert run.heartbeat().words == "finished without a sample"


def test_a_training_of_a_copy_is_named(tiny, quiet):
    model = tiny()
    with watch(model, **quiet) as monitor:
        copy.deepcopy(model)(tokens(0)).sum().backward()
    (said,) = monitor.failures
    assert "no pass through Tiny was seen" in said


def test_frozen_parameters_are_named(tiny, quiet, kept, loss):
    model = tiny().requires_grad_(False)
    with watch(model, **quiet) as monitor:
        loss(model, 0)
        monitor.step()
    (said,) = monitor.failures
    assert said.startswith("no gradient was recorded at step 0")
    assert np.isfinite(kept.of("row_mass")).all()


def test_a_schedule_that_records_no_step_is_named(tiny, quiet, loss):
    model = tiny()
    with watch(model, schedule=Schedule(dense=0, every=100), first_step=1, **quiet) as monitor:
        train(model, loss, monitor)
    (said,) = monitor.failures
    assert "no step was recorded: " in said


@pytest.mark.slow
def test_a_graph_that_was_made_before_is_named(tiny, quiet, kept, loss):
    torch.compiler.reset()
    model = tiny()
    compiled = torch.compile(model, backend="eager")
    loss(compiled, 0)
    with watch(model, **quiet) as monitor:
        train(compiled, loss, monitor)
    (said,) = monitor.failures
    assert "no attention was recorded of layers.0, layers.1 at step 0" in said
    assert "torch.compiler.reset()" in said
    torch.compiler.reset()
