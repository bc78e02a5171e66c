"""A race against the softmax twin: what the twin is, what is left alone, and what is said."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import stabmon
from stabmon import config as configuration
from stabmon.ab_test import RaceReport, race_of_run
from stabmon.ab_test.recipes import RECIPES, positions
from stabmon.errors import FixError
from stabmon.kernels import sigmoid_attention
from stabmon.nn import Block, SigmoidAttention, SoftmaxAttention

WIDTH, LENGTH = 16, 32


def blocks(of=SigmoidAttention, **options):
    torch.manual_seed(0)
    options |= {"max_length": LENGTH} if of is SigmoidAttention else {}
    return nn.Sequential(*(Block(WIDTH, of(WIDTH, 2, is_causal=True, **options)) for _ in "ab"))


def step(model, index):
    x = torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(index))
    return (model(x) - x.roll(1, 1)).square().mean()


class Foreign(nn.Module):
    """Attention that stabmon did not write, around the public function."""

    def __init__(self):
        super().__init__()
        self.qkv, self.dropout = nn.Linear(WIDTH, 3 * WIDTH), nn.Dropout(0.1)

    def forward(self, x):
        query, key, value = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return self.dropout(x + sigmoid_attention(query, key, value, is_causal=True).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("position", ["rope", "alibi"])
def test_the_twin_of_our_modules_is_softmax_attention_with_the_same_weights(position):
    report = stabmon.race(blocks(position=position), step, steps=4, seeds=1)
    twin = blocks(SoftmaxAttention, position=position)
    optimizer, losses = torch.optim.AdamW(twin.parameters(), lr=1e-3), []
    for index in range(4):
        loss = step(twin, index)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert report.softmax[0] == pytest.approx(losses, rel=1e-5)
    assert report.sigmoid[0] != pytest.approx(losses, rel=1e-3)


def test_a_foreign_module_that_calls_the_function_is_raced():
    report = stabmon.race(Foreign(), step, steps=8, seeds=2)
    assert report.seeds == len(report.sigmoid) == len(report.softmax) == 2
    assert report.sigmoid != report.softmax


def test_a_model_without_sigmoid_attention_is_refused():
    with pytest.raises(ValueError, match="no call of stabmon"):
        stabmon.race(nn.Linear(WIDTH, WIDTH), step, steps=2, seeds=1)


def test_a_live_optimizer_goes_on_from_its_state_and_nothing_of_the_users_changes():
    model = blocks()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for index in range(3):
        step(model, 1000 + index).backward()
        optimizer.step()
    weights = [weight.clone() for weight in model.parameters()]
    moments = [state["exp_avg"].clone() for state in optimizer.state.values()]
    gradients = [weight.grad.clone() for weight in model.parameters()]
    model[0].eval()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    stabmon.race(model, step, optimizer=optimizer, steps=2, seeds=1, recipes=True)
    assert all(map(torch.equal, weights, model.parameters()))
    assert all(torch.equal(a, b["exp_avg"]) for a, b in zip(moments, optimizer.state.values(), strict=True))
    assert all(torch.equal(a, b.grad) for a, b in zip(gradients, model.parameters(), strict=True))
    assert (model[0].training, model[1].training, len(optimizer.param_groups)) == (False, True, 1)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])


def test_the_state_of_a_live_optimizer_decides_the_steps_of_the_copies():
    model = blocks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step(model, 5).backward()
    optimizer.step()
    warm = stabmon.race(model, step, optimizer=optimizer, steps=3, seeds=1)
    cold = stabmon.race(
        model, step, optimizer=lambda copy: torch.optim.SGD(copy.parameters(), 0.1, 0.9), steps=3, seeds=1
    )
    assert warm.sigmoid[0][0] == cold.sigmoid[0][0]
    assert warm.sigmoid[0][2] != cold.sigmoid[0][2]


def test_recipes_run_the_same_race_and_one_that_is_there_is_left_out():
    report = stabmon.race(blocks(qk_norm=True), step, steps=4, seeds=2, recipes=True)
    assert [one.name for one in report.recipes] == [name for name in RECIPES if name != "QK norm"]
    for one in report.recipes:
        assert one.losses != report.sigmoid
        assert one.gap.mean == pytest.approx(one.gain.mean + report.gap.mean)


def made(gap, seeds=3, steps=80, since=0):
    """Losses of both sides whose difference is ``gap`` from step ``since`` on, with a little noise a seed."""
    base = np.linspace(3, 2, steps)
    noise = np.random.default_rng(0).normal(0, 0.003, (seeds, steps))
    shifted = base + gap * (np.arange(steps) >= since) + noise
    as_losses = lambda values: tuple(map(tuple, values.tolist()))  # noqa: E731
    return as_losses(shifted), as_losses(np.tile(base, (seeds, 1)))


@pytest.mark.parametrize(("gap", "standing"), [(0.1, "behind"), (-0.1, "ahead"), (0.0, "level")])
def test_the_interval_over_seeds_decides_who_is_behind(gap, standing):
    report = RaceReport.of(*made(gap), {})
    assert report.standing == standing
    assert (report.shown_from is None) is (standing == "level")


def test_the_steps_that_show_it_are_those_of_the_running_gap():
    shown = RaceReport.of(*made(0.1, since=40), {}).shown_from
    assert 41 <= shown <= 60
    assert "nats behind its softmax twin after 80 steps over 3 seeds" in str(RaceReport.of(*made(0.1), {}))


def test_one_seed_says_nothing_of_chance():
    report = RaceReport.of(*made(0.1, seeds=1), {})
    assert report.standing == "level"
    assert "one seed does not say" in report.sentence


def test_the_best_recipe_is_the_one_that_measurably_closed_most():
    sigmoid, softmax = made(0.1)
    report = RaceReport.of(sigmoid, softmax, {"no help": sigmoid, "some": made(0.06)[0], "most": made(0.02)[0]})
    assert report.best.name == "most"
    assert RaceReport.of(sigmoid, softmax, {"no help": sigmoid}).best is None
    assert RaceReport.model_validate_json(report.model_dump_json()) == report


def test_a_configured_run_races_itself():
    config = configuration.override(
        configuration.load("fixed"),
        {"model.layers": 1, "model.width": 16, "model.context": 16, "training.batch": 2},
    )
    report = race_of_run(config, steps=4, seeds=2, recipes=True)
    assert [one.name for one in report.recipes] == [*RECIPES, *positions(config)]
    assert report.sigmoid[0] != report.sigmoid[1]
    softmax = configuration.override(config, {"model.attention": "softmax"})
    with pytest.raises(FixError, match="softmax attention already"):
        race_of_run(softmax, steps=2, seeds=1)
