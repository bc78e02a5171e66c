"""A race beside a watched training: what it finds, what it costs, and that the training does not see it."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import stabmon
from stabmon.errors import ArgumentError
from stabmon.kernels import sigmoid_attention

STEPS = 24
LENGTH = 32


class Lookup(nn.Module):
    """Guesses the token before each: what attention alone can do, and a bias far too low cannot."""

    def __init__(self, bias):
        super().__init__()
        self.embed, self.place = nn.Embedding(16, 16), nn.Parameter(torch.randn(LENGTH, 16))
        self.project, self.out, self.drop = nn.Linear(16, 48), nn.Linear(16, 16), nn.Dropout(0.1)
        self.bias = bias

    def forward(self, tokens, labels=None):
        x = self.embed(tokens) + self.place
        q, k, v = self.project(x).view(len(tokens), LENGTH, 3, 2, 8).permute(2, 0, 3, 1, 4)
        mixed = sigmoid_attention(q, k, v, bias=self.bias, is_causal=True)
        logits = self.out(x + self.drop(mixed.transpose(1, 2).reshape(len(tokens), LENGTH, 16)))
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        return {"loss": loss} if labels is None else logits


def trained(race, bias=-3.5, steps=STEPS, scheduled=False, **options):
    torch.manual_seed(0)
    model = Lookup(bias)
    adam = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0) if scheduled else None
    quiet = {"dir": None, "console": False, "trackers": False}
    with stabmon.watch(model, adam, race=race, schedule=stabmon.Schedule(dense=steps), **quiet, **options) as monitor:
        for _ in range(steps):
            loss = model(torch.randint(16, (4, LENGTH)))["loss"]
            loss.backward()
            adam.step()
            if schedule is not None:
                schedule.step()
            adam.zero_grad()
            monitor.log(loss=loss)
        findings = [one for one in monitor.findings if one.code == "BEH001"]
    return model, torch.get_rng_state(), findings, monitor


@pytest.mark.parametrize("scheduled", [False, True], ids=["plain", "with a scheduler"])
def test_a_raced_training_has_the_same_bits_and_random_state(scheduled):
    alone, state, _, _ = trained(False, scheduled=scheduled)
    raced, after, _, monitor = trained(stabmon.Race(every=2), scheduled=scheduled)
    assert monitor.failures == ()
    assert torch.equal(state, after)
    assert all(torch.equal(one, other) for one, other in zip(alone.parameters(), raced.parameters(), strict=True))


def test_a_model_far_behind_its_twin_is_found_and_one_that_is_level_is_not():
    (found,) = trained(stabmon.Race(every=1), bias=6.0)[2]
    assert found.severity.value == "warning"
    assert [cell.metric for cell in found.cells] == ["softmax_gap_low", "softmax_gap", "race_cost"]
    assert trained(stabmon.Race(every=1))[2] == []


def test_a_race_ends_after_its_steps_and_keeps_no_copy():
    *_, monitor = trained(stabmon.Race(every=1, steps=3))
    assert monitor.failures == ()
    model, adam = Lookup(-3.5), None
    adam = torch.optim.AdamW(model.parameters(), 1e-2)
    with stabmon.watch(model, adam, race=stabmon.Race(every=1, steps=2), dir=None, console=False) as monitor:
        for _ in range(3):
            model(torch.randint(16, (4, LENGTH)))["loss"].backward()
            adam.step()
            assert len(monitor._race._sides) == (2 if monitor.steps < 2 else 0)


def test_a_model_without_a_loss_is_said_and_trains_on():
    torch.manual_seed(0)
    model = Lookup(-3.5)
    adam = torch.optim.AdamW(model.parameters(), 1e-2)
    with stabmon.watch(model, adam, race=True, dir=None, console=False, trackers=False) as monitor:
        model(torch.randint(16, (4, LENGTH)), labels=True).sum().backward()
        adam.step()
    assert any("stabmon.Race(loss=" in text for text in monitor.failures)


@pytest.mark.parametrize("race", [stabmon.Race(every=0), "yes"])
def test_options_of_another_kind_are_refused(race):
    with pytest.raises(ArgumentError, match="race"):
        trained(race)


def test_a_race_needs_an_optimizer():
    with pytest.raises(ArgumentError, match="needs one optimizer"):
        stabmon.watch(Lookup(-3.5), race=True, dir=None)
