"""A trial on a model of the user's own: same state, same data, and the model itself is left alone."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

import stabmon
from stabmon.ab_test import TrialReport
from stabmon.errors import FixError
from stabmon.fixes import bias_fix, clip_fix, learning_rate_fix, precision_fix, together, warmup_fix
from stabmon.fixes.kinds.qk_norm import qk_norm_everywhere
from stabmon.fixes.record import Fix
from stabmon.nn import Block, SigmoidAttention

WIDTH, LENGTH = 16, 64


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(WIDTH, SigmoidAttention(WIDTH, 2, bias=0.0, max_length=LENGTH)) for _ in "ab")
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = self.dropout(layer(x))
        return x


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def step(model: nn.Module, index: int) -> torch.Tensor:
    x = torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(index))
    return (model(x) - x.roll(1, 1)).square().mean()


def bias_fixes(value: float = -4.0) -> list[Fix]:
    found = stabmon.preflight(Model(), torch.randn(2, LENGTH, WIDTH)).map.attentions
    return [bias_fix(one, value, "rows then sum to one") for one in found]


def test_both_sides_have_the_same_state_data_and_dropout(model: Model) -> None:
    report = stabmon.trial(model, clip_fix(1e9, "why"), step, steps=4, seeds=2)
    assert report.without.losses == report.with_fix.losses
    assert report.difference.mean == 0.0
    assert report.without.losses[0] != report.without.losses[1]


def test_the_model_is_left_as_it_was(model: Model, count_hooks: Callable[[nn.Module], int]) -> None:
    model.layers[1].eval()
    (model(torch.randn(1, 4, WIDTH)).sum()).backward()
    before, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    gradients = [weight.grad.clone() for weight in model.parameters()]
    fixes = bias_fixes()
    state = torch.get_rng_state()
    stabmon.trial(model, fixes, step, steps=2, seeds=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(weight.grad, was) for weight, was in zip(model.parameters(), gradients, strict=True))
    assert count_hooks(model) == 0


def test_the_side_without_the_fix_is_the_training_that_the_user_would_have_had(model: Model) -> None:
    report = stabmon.trial(
        model, bias_fixes(), step, optimizer=lambda of: torch.optim.SGD(of.parameters(), lr=0.1), steps=3, seeds=1
    )
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=0.1), []
    torch.manual_seed(0)
    for index in range(3):
        loss = step(model.train(), index)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert list(report.without.losses[0]) == losses
    assert report.with_fix.losses[0][0] != losses[0]


def test_a_bias_that_fixes_the_model_is_called_better_and_its_finding_is_gone(model: Model) -> None:
    report = stabmon.trial(model, bias_fixes(), step, steps=12, seeds=3)
    assert "ATT001" in report.without.codes
    assert "ATT001" not in report.with_fix.codes
    assert report.difference.high < 0
    assert report.sentence.startswith("Take it: after 12 steps the loss is ")
    assert "ATT001" in report.sentence
    assert [one.module for one in report.applied] == ["layers.0.attention", "layers.1.attention"]
    assert TrialReport.model_validate_json(report.model_dump_json()).verdict == report.verdict
    words = " ".join(str(report).split())
    assert "On trial in layers.0.attention and layers.1.attention: bias = -4 in layers.0.attention" in words


def test_a_learning_rate_that_is_too_high_is_advised_against(model: Model) -> None:
    report = stabmon.trial(model, learning_rate_fix(3000.0, "why"), step, steps=4, seeds=2)
    assert report.verdict == "worse"
    assert report.sentence.startswith("Leave it")


def test_warm_up_scales_the_rate_of_each_step(model: Model) -> None:
    rates = []

    def made(of: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(of.parameters(), lr=0.1)
        optimizer.register_step_post_hook(lambda it, *_: rates.append(it.param_groups[0]["lr"]))
        return optimizer

    fixes = [warmup_fix(4, "why"), learning_rate_fix(0.5, "why")]
    stabmon.trial(model, fixes, step, optimizer=made, steps=5, seeds=1)
    assert rates == pytest.approx([0.1] * 5 + [0.0125, 0.025, 0.0375, 0.05, 0.05])


def test_qk_norm_beside_a_warm_up_is_put_into_every_layer(model: Model) -> None:
    attentions = stabmon.preflight(model, torch.randn(2, LENGTH, WIDTH)).map.attentions
    both = together(warmup_fix(4, "why"), qk_norm_everywhere(attentions, "why"))
    (applied,) = stabmon.trial(model, both, step, steps=2, seeds=1).applied
    assert {name.rpartition(".attention.")[0] for name in applied.parameters} == {"layers.0", "layers.1"}


def test_progress_counts_over_both_sides_and_all_seeds(model: Model) -> None:
    seen = []
    stabmon.trial(model, bias_fixes(), step, steps=2, seeds=2, progress=lambda done, loss: seen.append(done))
    assert seen == list(range(1, 9))


def test_a_fix_that_cannot_be_tried_is_refused_with_the_reason(model: Model) -> None:
    with pytest.raises(FixError, match="decided inside step"):
        stabmon.trial(model, precision_fix("bf16", "why"), step)
    with pytest.raises(ValueError, match="needs a fix"):
        stabmon.trial(model, [], step)
    with pytest.raises(ValueError, match="at least 1, got 0 and 3"):
        stabmon.trial(model, bias_fixes(), step, steps=0)
