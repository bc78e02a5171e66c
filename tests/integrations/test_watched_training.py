"""Rules that every framework's callback follows: nothing raises, and each step is counted once."""

import logging

import pytest
import torch

from stabmon.integrations.watched_training import WatchedTraining
from tests.integrations.language_model import LanguageModel, dataset, read

STEPS = 3


class Wrapper:
    """An optimizer that is none of torch's, around one."""

    def __init__(self, optimizer, attribute):
        setattr(self, attribute, optimizer)
        self.step = optimizer.step


class WithoutHooks(torch.optim.Optimizer):
    """A subclass that never calls the constructor of its base, which makes the tables of hooks."""

    def __init__(self, hidden):
        self._hidden = hidden

    param_groups = property(lambda self: self._hidden.param_groups)

    def step(self, closure=None):
        return self._hidden.step(closure)


OPTIMIZERS = {
    "torch's": lambda optimizer: optimizer,
    "wrapped": lambda optimizer: Wrapper(optimizer, "optimizer"),
    "hidden": lambda optimizer: Wrapper(optimizer, "hidden"),
    "without hooks": WithoutHooks,
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_each_step_is_counted_once_whatever_the_optimizer_is(kind, tmp_path):
    model = LanguageModel()
    optimizer = OPTIMIZERS[kind](torch.optim.SGD(model.parameters(), lr=0.1))
    training = WatchedTraining({"dir": tmp_path / "runs", "name": "run", "console": False})
    training.begin(model, optimizer)
    for _ in range(STEPS):
        loss = model(dataset()[:4])
        loss.backward()
        optimizer.step()
        training.stepped()
        training.log({"loss": loss, "other": 1.0, "text": "x"})
    assert training.saved() == {"run": "run", "steps": STEPS}
    training.end()
    assert list(read(tmp_path, "attention_norm")) == list(range(STEPS))
    assert len(read(tmp_path, "loss")) == STEPS


def test_nothing_raises_before_after_and_without_a_training(tmp_path, caplog):
    training = WatchedTraining({"dir": tmp_path / "runs", "name": "not a name", "console": False})
    training.log({"loss": 1.0})
    training.stepped()
    training.begin(LanguageModel())
    training.log({"loss": torch.tensor(1.0)})
    training.end(failed=True)
    training.end()
    assert training.saved() == {"run": None}
    assert training.monitor is None
    (said,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert "not a name" in said


def test_a_monitor_that_its_user_closes_is_said_once_and_keeps_its_findings(tmp_path, caplog):
    model = LanguageModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    training = WatchedTraining({"dir": tmp_path / "runs", "name": "run", "console": False})
    training.begin(model, optimizer)
    for step in range(STEPS):
        model(dataset()[:4]).backward()
        optimizer.step()
        training.log({"loss": 1.0})
        if step == 0:
            training.monitor.close()
    training.end()
    assert training.monitor.steps == 1
    assert isinstance(training.monitor.findings, tuple)
    (said,) = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert "log was called on a monitor that is closed" in said
