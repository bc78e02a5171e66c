import pytest
import torch
from torch import nn

from stabmon.config import ModelConfig, RunConfig, TrainingConfig
from stabmon.nn import RMSNorm
from stabmon.workloads import training
from stabmon.workloads.intervention import Intervention
from stabmon.workloads.rate import rate

CONFIG = RunConfig(
    name="tiny",
    model=ModelConfig(layers=2, width=16, heads=2, context=16),
    training=TrainingConfig(steps=8, batch=2, learning_rate=1e-2, warmup=2),
)


def nothing(model: nn.Module) -> None:
    pass


def test_a_change_that_changes_nothing_leaves_every_bit() -> None:
    plain = training.train(CONFIG, watch=False)
    same = training.train(CONFIG, watch=False, intervention=Intervention(3, nothing, CONFIG.training))
    assert same.losses == plain.losses


def test_new_parameters_are_trained_from_the_step_on() -> None:
    model = training.build(CONFIG)

    def add_norm(model: nn.Module) -> None:
        model.get_submodule("layers.0.attention").query_norm = RMSNorm(8)

    plain = training.train(CONFIG, watch=False)
    changed = training.train(CONFIG, model=model, watch=False, intervention=Intervention(3, add_norm, CONFIG.training))
    assert changed.losses[:3] == plain.losses[:3]
    assert changed.losses[4:] != plain.losses[4:]
    assert not torch.equal(model.get_submodule("layers.0.attention").query_norm.weight, torch.ones(8))


@pytest.mark.parametrize("step", [0, 1, 5])
def test_another_learning_rate_follows_its_own_schedule_from_the_step_on(step: int) -> None:
    model = training.build(CONFIG)
    adam = training.optimizer(model, CONFIG)
    slower = CONFIG.training.model_copy(update={"learning_rate": 1e-3})
    schedule = Intervention(step, nothing, slower).carry_out(model, adam)
    assert schedule.get_last_lr() == pytest.approx([1e-3 * rate(step, slower)] * 2)
