"""Passes that count: accumulation, checkpointing in both modes, eval, AMP, and steps that the scaler skips."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from stabmon import Schedule, watch
from stabmon.series import is_missing
from tests.watched_model import tokens

EXACT = Schedule(rows=1000)


def _no_dropout(model):
    model.dropout.p = 0.0
    return model


def _one_step(model, passes, quiet, kept, **options):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    kept.rows.clear()
    with watch(model, optimizer, schedule=EXACT, **quiet | options) as monitor:
        passes()
        optimizer.step()
        assert not monitor.failures
    return kept.rows[0]


def test_accumulated_passes_make_one_row(tiny, quiet, kept, loss):
    model = _no_dropout(tiny())
    norms = []
    for step in (0, 1):
        one = _no_dropout(tiny())
        _one_step(one, lambda one=one, step=step: loss(one, step).backward(), quiet, kept)
        norms.append(kept.of("attention_norm"))

    def passes():
        (loss(model, 0) / 2).backward()
        (loss(model, 1) / 2).backward()

    _one_step(model, passes, quiet, kept)
    assert list(kept.rows) == [0]
    expected = np.sqrt((norms[0] ** 2 + norms[1] ** 2) / 2)
    np.testing.assert_allclose(kept.of("attention_norm"), expected, rtol=1e-5)
    again = _no_dropout(tiny())
    for step in (0, 1):
        (loss(again, step) / 2).backward()
    total = nn.utils.get_total_norm([p.grad for p in again.parameters()])
    np.testing.assert_allclose(kept.of("total_gradient_norm"), total.item(), rtol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks_are_counted_once(tiny, quiet, kept, loss, reentrant):
    plain, saving = _no_dropout(tiny()), _no_dropout(tiny())
    expected = _one_step(plain, lambda: loss(plain, 0).backward(), quiet, kept).copy()

    def forward(tokens):
        x = saving.embedding(tokens)
        for block in saving.layers:
            x = checkpoint(block, x, use_reentrant=reentrant)
        return saving.head(x)

    saving.forward = forward
    row = _one_step(saving, lambda: loss(saving, 0).backward(), quiet, kept)
    np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_eval_and_no_grad_passes_are_ignored(tiny, quiet, kept, loss):
    plain, busy = _no_dropout(tiny()), _no_dropout(tiny())
    expected = _one_step(plain, lambda: loss(plain, 0).backward(), quiet, kept).copy()

    def passes():
        loss(busy, 0).backward()
        with torch.no_grad():
            loss(busy, 1)
        busy.eval()
        loss(busy, 2)
        busy.train()

    assert np.array_equal(_one_step(busy, passes, quiet, kept), expected, equal_nan=True)


def test_gradient_norms_are_unscaled_under_a_scaler(tiny, quiet, kept, loss):
    plain, scaled = _no_dropout(tiny()), _no_dropout(tiny())
    expected = _one_step(plain, lambda: loss(plain, 0).backward(), quiet, kept).copy()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    row = _one_step(scaled, lambda: scaler.scale(loss(scaled, 0)).backward(), quiet, kept, scaler=scaler)
    np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_a_scaler_that_is_disabled_scales_nothing(tiny, quiet, kept, loss):
    plain, scaled = _no_dropout(tiny()), _no_dropout(tiny())
    expected = _one_step(plain, lambda: loss(plain, 0).backward(), quiet, kept).copy()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    row = _one_step(scaled, lambda: scaler.scale(loss(scaled, 0)).backward(), quiet, kept, scaler=scaler)
    np.testing.assert_array_equal(row, expected)


def test_a_model_in_float64_is_recorded(tiny, quiet, kept, loss):
    plain, double = _no_dropout(tiny()), _no_dropout(tiny()).double()
    expected = _one_step(plain, lambda: loss(plain, 0).backward(), quiet, kept).copy()
    row = _one_step(double, lambda: loss(double, 0).backward(), quiet, kept)
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(kept.of("total_gradient_norm")).all()


def test_gradients_that_are_freed_during_the_backward_pass_are_not_measured(tiny, quiet, kept, loss):
    model = _no_dropout(tiny())
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda parameter: setattr(parameter, "grad", None))
    _one_step(model, lambda: loss(model, 0).backward(), quiet, kept)
    assert is_missing(kept.of("total_gradient_norm")).all()
    assert np.isfinite(kept.of("attention_norm")).all()


def test_a_step_that_the_scaler_skips_is_no_step(tiny, quiet, kept, loss):
    model = tiny()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with watch(model, optimizer, scaler=scaler, **quiet) as monitor:
        for step in range(3):
            value = loss(model, step) * (float("inf") if step == 1 else 1.0)
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            monitor.log(loss=value)
        assert monitor.steps == 2
        assert not monitor.failures
    assert sorted(kept.rows) == [0, 1]
    assert np.isfinite(kept.of("total_gradient_norm", step=1)).all()


def test_autocast_to_bfloat16_is_recorded(tiny, quiet, kept, loss):
    plain, lower = _no_dropout(tiny()), _no_dropout(tiny())
    expected = _one_step(plain, lambda: loss(plain, 0).backward(), quiet, kept).copy()

    def passes():
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(lower, 0)
        value.backward()

    row = _one_step(lower, passes, quiet, kept)
    measured = ~is_missing(expected)
    assert (measured == ~is_missing(row)).all()
    np.testing.assert_allclose(row[measured], expected[measured], rtol=0.1, atol=0.05)


def test_learning_rate_schedulers_are_untouched(tiny, quiet, kept, loss):
    model = tiny()
    optimizer = torch.optim.AdamW(model.parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    with watch(model, optimizer, **quiet):
        for step in range(3):
            loss(model, step).backward()
            optimizer.step()
            schedule.step()
    assert [float(kept.of("learning_rate", step=step)[0]) for step in range(3)] == [1.0, 0.5, 0.25]
    assert schedule.get_last_lr() == [0.125]


def test_frozen_parameters_and_missing_gradients_do_not_break(tiny, quiet, kept, loss):
    model = tiny()
    for parameter in model.layers[0].parameters():
        parameter.requires_grad = False
    _one_step(model, lambda: loss(model, 0).backward(), quiet, kept)
    assert is_missing(kept.of("gradient_norm", "layers.0")).all()
    assert kept.of("gradient_norm", "layers.1") > 0


def _per_sample(model):
    weights = {name: value.detach() for name, value in model.named_parameters()}

    def loss(weights, x):
        return torch.func.functional_call(model, weights, (x[None],)).square().mean()

    torch.func.vmap(torch.func.grad(loss), (None, 0), randomness="different")(weights, tokens(1))


def _fake(model):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        model(torch.zeros(1, 4, dtype=torch.long))


def _traced(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, (tokens(0),), check_trace=False)


@pytest.mark.parametrize("when", [0, 1])
@pytest.mark.parametrize("odd", [_per_sample, _fake, _traced], ids=["torch.func", "fake tensors", "tracing"])
def test_a_transformed_pass_is_not_recorded_and_costs_nothing(tiny, quiet, kept, loss, odd, when):
    expected = {}
    for watched in (False, True):
        model = tiny()
        model.dropout.p = 0.0
        with watch(model, **quiet) as monitor:
            for step in range(2):
                if watched and step == when:
                    odd(model)
                loss(model, step).backward()
                monitor.step()
                monitor.log(loss=step)
                model.zero_grad()
            assert not monitor.failures
        expected[watched] = dict(kept.rows)
    for step in range(2):
        np.testing.assert_array_equal(expected[True][step], expected[False][step])
