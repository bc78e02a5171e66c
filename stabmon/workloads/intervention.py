"""A change made to a training on its way: to the model, which keeps what it has learnt, or to the settings."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stabmon.config import TrainingConfig
from stabmon.workloads.rate import rate


class Intervention(NamedTuple):
    """A change of the model and of the training before ``step`` (from 0)."""

    step: int
    change: Callable[[nn.Module], None]
    """Changes the model in place; the optimizer is given what is new in it."""
    training: TrainingConfig
    """Settings from then on."""

    def carry_out(self, model: nn.Module, adam: Optimizer) -> LambdaLR:
        """Change model and optimizer, and return the schedule from here on."""
        self.change(model)
        known = {id(weight) for group in adam.param_groups for weight in group["params"]}
        new = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in known]
        for weights, decay in ((_matrices(new), self.training.weight_decay), (_others(new), 0.0)):
            if weights:
                adam.add_param_group({"params": weights, "weight_decay": decay})
        for group in adam.param_groups:
            group["initial_lr"] = self.training.learning_rate
        return LambdaLR(adam, partial(rate, training=self.training), last_epoch=self.step - 1)


def _matrices(weights: list[nn.Parameter]) -> list[nn.Parameter]:
    return [weight for weight in weights if weight.dim() >= 2]


def _others(weights: list[nn.Parameter]) -> list[nn.Parameter]:
    return [weight for weight in weights if weight.dim() < 2]
