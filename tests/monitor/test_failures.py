"""Failures of a training's record, from the training to the run's file."""

import torch
from typer.testing import CliRunner

from stabmon import watch
from stabmon.cli import app
from stabmon.store import open_run


class Unrated(torch.optim.Optimizer):
    """An optimizer without a learning rate, which moves nothing."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": None})

    def step(self, closure=None):
        pass


def _train(model, loss, optimizer, steps):
    for step in steps:
        loss(model, step).backward()
        optimizer.step()


def test_what_is_missing_is_stored_with_the_run_also_when_it_goes_on(tiny, tmp_path, loss):
    for resume in (False, True):
        model = tiny()
        optimizer = Unrated(model.parameters())
        with watch(model, optimizer, dir=tmp_path, name="run", console=False, resume=resume) as monitor:
            _train(model, loss, optimizer, range(3))
        assert [text.partition(":")[0] for text in monitor.failures] == ["learning rate"]
    with open_run(tmp_path / "run") as run:
        stored = run.failures()
    assert [(one.first_step, one.last_step, one.count) for one in stored] == [(0, 2, 3), (3, 5, 3)]
    assert monitor.failures == (stored[1].text,)
    printed = " ".join(CliRunner().invoke(app, ["findings", str(tmp_path / "run")]).stdout.split())
    assert f"Missing in this run: - {stored[0].text} (steps 0 to 2, 3 times)" in printed
    as_json = CliRunner().invoke(app, ["findings", str(tmp_path / "run"), "--json"])
    assert as_json.stdout.startswith("[")
    assert "learning rate" in as_json.stderr


def test_a_step_that_was_never_recorded_is_stored_with_the_reason(tiny, tmp_path, loss):
    model = tiny()
    other = torch.optim.SGD(model.parameters(), 0.1)
    with watch(model, torch.optim.SGD(model.parameters(), 0.1), dir=tmp_path, name="run", console=False):
        _train(model, loss, other, range(2))
    with open_run(tmp_path / "run") as run:
        (only,) = run.failures()
    assert only.subject == "no step was recorded"
    assert "Give watch the optimizer in use" in only.reason
