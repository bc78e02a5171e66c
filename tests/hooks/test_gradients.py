"""Gradient norms are those of the parameters that train at the time, however the model was changed after ``watch``."""

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import watch
from tests.watched_model import WIDTH


class Adapted(nn.Module):
    """A projection with a low-rank addition."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(2, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, 2))

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


def adapt(model):
    model.layers[0].attention.qkv = Adapted(model.layers[0].attention.qkv)


def lora(model):
    peft = pytest.importorskip("peft")
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["qkv"], r=2), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora" in name or "head" in name)


CHANGES = {
    "unfrozen": lambda model: model.layers.requires_grad_(True),
    "frozen": lambda model: model.embedding.requires_grad_(False),
    "new head": lambda model: setattr(model, "head", nn.Linear(WIDTH, 32)),
    "replaced parameter": lambda model: setattr(model.head, "weight", nn.Parameter(torch.randn(32, WIDTH))),
    "adapter": adapt,
    "LoRA": lora,
    "parametrised": lambda model: torch.nn.utils.parametrizations.weight_norm(model.head),
    "assigned state": lambda model: model.load_state_dict(
        {name: value.clone() for name, value in model.state_dict().items()}, assign=True
    ),
}


@pytest.mark.parametrize("when", ["before the first step", "between steps"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_parameters_that_change_after_watch_are_seen(tiny, quiet, kept, loss, change, when):
    model, expected = tiny(), []
    if change is CHANGES["unfrozen"]:
        model.layers.requires_grad_(False)
    with watch(model, **quiet) as monitor:
        for step in range(2):
            if step == (when == "between steps"):
                change(model)
            loss(model, step).backward()
            gradients = [p.grad.double() for p in model.parameters() if p.requires_grad and p.grad is not None]
            expected.append(sum(gradient.square().sum() for gradient in gradients).sqrt())
            monitor.step()
            model.zero_grad()
    for step in range(2):
        np.testing.assert_allclose(kept.of("total_gradient_norm", step=step), expected[step], rtol=1e-5)


def test_hooks_on_parameters_that_have_left_the_model_are_gone(tiny, quiet, loss, count_hooks):
    model = tiny()
    old = model.head
    with watch(model, **quiet):
        loss(model, 0)
        assert count_hooks(old) > 0
        model.head = nn.Linear(WIDTH, 32)
        loss(model, 0).backward()
        assert not old.weight._post_accumulate_grad_hooks
    assert count_hooks(model) == 0
