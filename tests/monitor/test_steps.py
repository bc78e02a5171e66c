"""Steps that are counted, and the step that each number belongs to, in loops that are not the plain one."""

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import Schedule, watch
from stabmon.series import is_missing


def losses(kept):
    values = {step: kept.of("loss", step=step) for step in sorted(kept.rows)}
    return {step: float(value[0]) for step, value in values.items() if not is_missing(value).any()}


def total(model):
    return float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))


def sgd(model, rate=0.01):
    return torch.optim.SGD(model.parameters(), rate)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_pass_without_gradients_between_step_and_log_begins_no_step(tiny, quiet, kept, loss, context):
    model = tiny()
    optimizer = sgd(model)
    with watch(model, optimizer, **quiet) as monitor:
        for step in range(3):
            loss(model, step).backward()
            optimizer.step()
            with context():
                loss(model, 9)
            monitor.log(loss=step)
    assert losses(kept) == {0: 0, 1: 1, 2: 2}


def test_a_loss_logged_before_backward_in_an_eval_mode_training_belongs_to_its_step(tiny, quiet, kept, loss):
    model = tiny().eval()
    optimizer = sgd(model)
    with watch(model, optimizer, **quiet) as monitor:
        for step in range(3):
            value = loss(model, step)
            monitor.log(loss=step)
            value.backward()
            optimizer.step()
    assert losses(kept) == {0: 0, 1: 1, 2: 2}


def test_a_loss_logged_before_a_reentrant_checkpoint_is_recomputed_belongs_to_its_step(tiny, quiet, kept):
    model = tiny()
    block = model.layers[0]
    plain, block.forward = block.forward, None
    block.forward = lambda x: torch.utils.checkpoint.checkpoint(plain, x, use_reentrant=True)
    with watch(model, **quiet) as monitor:
        for step in range(3):
            value = model(torch.zeros(1, 4, dtype=torch.long)).sum()
            monitor.log(loss=step)
            value.backward()
            monitor.step()
    assert losses(kept) == {0: 0, 1: 1, 2: 2}


def test_optimizers_that_step_together_end_one_step(tiny, quiet, kept, loss):
    model = tiny()
    head = torch.optim.SGD(model.head.parameters(), 0.5)
    rest = torch.optim.AdamW([*model.embedding.parameters(), *model.layers.parameters()], 0.25)
    with watch(model, [head, rest], **quiet) as monitor:
        for step in range(3):
            loss(model, step).backward()
            head.step(), rest.step()
            head.zero_grad(), rest.zero_grad()
            monitor.log(loss=step)
        assert monitor.steps == 3
        assert not monitor.failures
    assert losses(kept) == {0: 0, 1: 1, 2: 2}
    assert {float(kept.of("learning_rate", step=step)[0]) for step in range(3)} == {0.5}


def test_optimizers_that_take_turns_end_a_step_each_with_their_own_rate(tiny, quiet, kept, loss):
    model = tiny()
    turns = [torch.optim.SGD(model.head.parameters(), 0.5), torch.optim.SGD(model.layers.parameters(), 0.25)]
    with watch(model, turns, **quiet) as monitor:
        for step in range(4):
            loss(model, step).backward()
            turns[step % 2].step()
            model.zero_grad()
            monitor.log(loss=step)
        assert monitor.steps == 4
    assert losses(kept) == {0: 0, 1: 1, 2: 2, 3: 3}
    assert [float(kept.of("learning_rate", step=step)[0]) for step in range(4)] == [0.5, 0.25, 0.5, 0.25]


def test_a_step_that_only_makes_the_optimizers_state_is_no_step_of_the_training(tiny, quiet, kept, loss):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    with watch(model, optimizer, **quiet) as monitor:
        optimizer.step()  # as torch.distributed.checkpoint does before it loads a state
        for step in range(2):
            loss(model, step).backward()
            optimizer.step()
            monitor.log(loss=step)
        assert monitor.steps == 2
    assert losses(kept) == {0: 0, 1: 1}


def test_a_training_whose_passes_are_not_seen_still_counts_its_steps_and_losses(tiny, quiet, kept, loss):
    model, twin = tiny(), tiny()
    optimizer = sgd(model)
    with watch(model, optimizer, **quiet) as monitor:
        for step in range(3):
            gradients = torch.autograd.grad(loss(twin, step), list(twin.parameters()))
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
            monitor.log(loss=step)
        assert monitor.steps == 3
    assert losses(kept) == {0: 0, 1: 1, 2: 2}
    assert any("no pass through Tiny was seen" in said for said in monitor.failures)


def test_a_closure_that_evaluates_the_loss_several_times_is_one_step(tiny, quiet, kept, loss):
    model, evaluations = tiny(), []
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3)

    def closure():
        optimizer.zero_grad()
        value = loss(model, 0)
        value.backward()
        evaluations.append(total(model))
        return value

    with watch(model, optimizer, **quiet) as monitor:
        for step in range(2):
            optimizer.step(closure)
            monitor.log(loss=step)
            last = evaluations[-1]
        assert monitor.steps == 2
    assert len(evaluations) > 2
    assert losses(kept) == {0: 0, 1: 1}
    np.testing.assert_allclose(kept.of("total_gradient_norm", step=1), last, rtol=1e-5)


def test_a_fused_step_whose_gradients_overflow_records_no_gradient_norm(tiny, quiet, kept, loss):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with watch(model, optimizer, scaler=scaler, **quiet) as monitor:
        for step in range(3):
            value = loss(model, step)
            scaler.scale(value * (3e38 if step == 1 else 1.0)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            monitor.log(loss=value)
        assert monitor.steps == 3
    absent = [bool(is_missing(kept.of("total_gradient_norm", step=step)).all()) for step in range(3)]
    assert absent == [False, True, False]
    assert sorted(losses(kept)) == [0, 1, 2]


def test_accumulated_passes_are_reduced_as_the_glossary_says(quiet, kept):
    from stabmon.nn import Block, SigmoidAttention

    block = Block(16, SigmoidAttention(16, 4, max_length=12))
    batches = [torch.randn(2, 12, 16), 3 * torch.randn(2, 12, 16)]
    alone = []
    for batch in batches:
        with watch(block, schedule=Schedule(rows=1000), **quiet) as monitor:
            block(batch).sum().backward()
            monitor.step()
        alone.append(dict(zip(("max", "mass"), (kept.of("logit_max"), kept.of("row_mass")), strict=True)))
        block.zero_grad()
    with watch(block, schedule=Schedule(rows=1000), **quiet) as monitor:
        for number, batch in enumerate(batches):
            block(batch).sum().backward()
            monitor.log(loss=number)
        expected = total(block)
        monitor.step()
    np.testing.assert_allclose(kept.of("residual_in"), torch.stack(batches).square().mean().sqrt(), rtol=1e-5)
    np.testing.assert_allclose(kept.of("row_mass"), (alone[0]["mass"] + alone[1]["mass"]) / 2, rtol=1e-5)
    np.testing.assert_allclose(kept.of("logit_max"), np.maximum(alone[0]["max"], alone[1]["max"]), rtol=1e-5)
    np.testing.assert_allclose(kept.of("total_gradient_norm"), expected, rtol=1e-5)
    assert losses(kept) == {0: 1}


class Wrapper(torch.optim.Optimizer):
    """Wraps an optimizer and never calls ``Optimizer.__init__``, as many published ones."""

    def __init__(self, inner):
        self.inner = inner

    param_groups = property(lambda self: self.inner.param_groups)
    state = property(lambda self: self.inner.state)

    def step(self, closure=None):
        return self.inner.step(closure)

    def zero_grad(self, set_to_none=True):
        self.inner.zero_grad(set_to_none)


class WithTables(Wrapper):
    """Has the tables of hooks, and a ``step`` that does not run them."""

    def __init__(self, inner):
        super().__init__(inner)
        self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = {}, {}
        self.defaults = inner.defaults


class Repairing(WithTables):
    """Torch's own ``zero_grad`` makes the ``step`` of its class run hooks, after the first step."""

    zero_grad = torch.optim.Optimizer.zero_grad


class Twice(Wrapper):
    """A wrapper in a wrapper."""

    def __init__(self, inner):
        super().__init__(Wrapper(inner))


@pytest.mark.parametrize("kind", [Wrapper, WithTables, Repairing, Twice])
def test_the_steps_of_a_wrapped_optimizer_are_counted(tiny, quiet, kept, loss, kind):
    model = tiny()
    optimizer = kind(sgd(model, 0.25))
    with watch(model, optimizer, **quiet) as monitor:
        for step in range(3):
            loss(model, step).backward()
            optimizer.step()
            optimizer.zero_grad()
            monitor.log(loss=step)
        assert monitor.steps == 3
        assert not monitor.failures
    assert losses(kept) == {0: 0, 1: 1, 2: 2}
    assert kept.of("learning_rate", step=2) == 0.25


def test_the_optimizer_of_accelerate_is_counted(tiny, quiet, loss):
    accelerate = pytest.importorskip("accelerate")
    model = tiny()
    model, optimizer = accelerate.Accelerator(cpu=True).prepare(model, sgd(model))
    with watch(model, optimizer, **quiet) as monitor:
        for step in range(3):
            loss(model, step).backward()
            optimizer.step()
        assert monitor.steps == 3


class Relative(torch.optim.Optimizer):
    """Works out its own rate."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-1e-2)


@pytest.mark.parametrize(
    ("defaults", "rate"),
    [
        ({"lr": 0.25}, 0.25),
        ({"lr": torch.tensor(0.25)}, 0.25),
        ({"lr": torch.tensor([0.25], dtype=torch.float64)}, 0.25),
        ({"lr": None}, None),
        ({"step_size": 0.25}, None),
        ({"lr": [0.25]}, None),
        ({"lr": torch.tensor([0.25, 0.5])}, None),
    ],
    ids=["number", "tensor", "float64", "None", "no key", "list", "tensor of two"],
)
def test_a_rate_that_is_no_number_is_missing_and_named_and_nothing_else_is(tiny, quiet, kept, loss, defaults, rate):
    model = tiny()
    optimizer = Relative(model.parameters(), defaults)
    with watch(model, optimizer, **quiet) as monitor:
        for step in range(3):
            loss(model, step).backward()
            optimizer.step()
            monitor.log(loss=step)
    assert losses(kept) == {0: 0, 1: 1, 2: 2}
    assert np.isfinite(kept.of("row_mass", step=2)).all()
    if rate is None:
        assert is_missing(kept.of("learning_rate", step=2)).all()
        assert [said.partition(":")[0] for said in monitor.failures] == ["learning rate"]
    else:
        assert kept.of("learning_rate", step=2) == rate
        assert not monitor.failures


def test_what_offers_no_hook_is_refused_before_anything_is_made(tiny, tmp_path):
    class Own:
        param_groups = ()

        def step(self): ...

    from stabmon.errors import ArgumentError

    with pytest.raises(ArgumentError, match=r"got Own; leave it out and call monitor.step\(\)"):
        watch(tiny(), Own(), dir=tmp_path / "runs", console=False)
    assert not list(tmp_path.iterdir())


def test_gradients_of_complex_parameters_count(quiet, kept):
    class Filtered(nn.Module):
        def __init__(self):
            super().__init__()
            self.filter = nn.Parameter(torch.randn(3, 8, dtype=torch.complex64))
            self.out = nn.Linear(8, 8)

        def forward(self, x):
            return self.out(torch.fft.irfft(torch.fft.rfft(x, dim=1) * self.filter, n=4, dim=1))

    model = Filtered()
    with watch(model, **quiet) as monitor:
        model(torch.randn(2, 4, 8)).square().sum().backward()
        expected = sum(p.grad.abs().double().square().sum() for p in model.parameters()).sqrt()
        monitor.step()
    np.testing.assert_allclose(kept.of("total_gradient_norm"), expected, rtol=1e-5)
