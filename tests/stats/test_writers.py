"""The deferred way into the buffer against the direct one: the same calls give the same row."""

import math

import numpy as np
import pytest
import torch

from stabmon.kernels import AuxRequest
from stabmon.kernels.eager.reference import sigmoid_attention
from stabmon.kernels.observe import Call
from stabmon.kernels.problem import Problem
from stabmon.records import Attention
from stabmon.stats import Plan, finalise
from stabmon.stats.deferred_writer import DeferredWriter
from stabmon.stats.direct_writer import DirectWriter

ALL, EVERY_ROW = slice(None), AuxRequest(rows=100, offset=0.5)


def _plan(*heads):
    layers = [f"layers.{index}" for index in range(len(heads))]
    return Plan(
        [
            Attention(
                layer=name, module=f"{name}.a", block=name, branch=f"{name}.a", kind="sigmoid", heads=count, head_dim=8
            )
            for name, count in zip(layers, heads, strict=True)
        ]
    )


def _call(seed, heads, key_heads, *, length=7, dtype=torch.float32, bias=None, causal=True, slopes=None):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(3, count, length, 8, generator=generator).to(dtype) for count in (heads, key_heads, key_heads)
    )
    given = -math.log(length) if bias is None else bias
    per_head, level = (given, 0.0) if isinstance(given, torch.Tensor) else (None, given)
    problem = Problem(query, key, value, per_head, level, slopes, 8**-0.5, causal)
    return Call(problem, sigmoid_attention(problem))


def _rows(plan, feed):
    """Return the row that ``feed`` makes by each way into the buffer."""
    buffers = [torch.tensor(plan.initial) for _ in range(2)]
    for kind, buffer in zip((DeferredWriter, DirectWriter), buffers, strict=True):
        writer = kind(plan, buffer)
        feed(writer)
        writer.flush()
    return [finalise(buffer.numpy(), plan) for buffer in buffers]


def _same(deferred, direct, rtol=2e-6):
    assert (np.isnan(deferred) == np.isnan(direct)).all()
    np.testing.assert_allclose(deferred, direct, rtol=rtol, atol=1e-6)
    assert np.isfinite(deferred).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("key_heads", [4, 2, 1], ids=lambda count: f"H4-HK{count}")
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_layers_of_one_kind_computed_together_equal_layers_computed_one_by_one(dtype, key_heads, causal):
    plan = _plan(4, 4, 4)
    calls = [_call(seed, 4, key_heads, dtype=dtype, causal=causal, bias=seed - 2.0) for seed in range(3)]

    def feed(writer):
        for slots, call in zip(plan.slots, calls, strict=True):
            writer.call(slots, call, ALL, EVERY_ROW)

    _same(*_rows(plan, feed))


def test_layers_of_different_kinds_keep_their_own_numbers():
    plan = _plan(4, 2, 2, 4)
    slopes = torch.tensor([0.5, 0.25])
    calls = [
        _call(0, 4, 2, bias=torch.tensor([-1.0, 0.0, 1.0, -5.0])),
        _call(1, 2, 2, length=5),
        _call(2, 2, 2, length=5, slopes=slopes),
        _call(3, 4, 4, causal=False),
    ]

    def feed(writer):
        for slots, call in reversed(list(zip(plan.slots, calls, strict=True))):  # layers need not run in their order
            writer.call(slots, call, ALL, EVERY_ROW)

    _same(*_rows(plan, feed))


def test_a_module_that_is_called_again_adds_to_its_numbers():
    plan = _plan(4, 4)
    first, second = _call(0, 4, 4, bias=-3.0), _call(1, 4, 4, bias=2.0, length=11)
    x = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(2))

    def feed(writer):
        for call in (first, second):
            for slots in plan.slots:
                writer.power(slots, "stream_in", x)
                writer.call(slots, call, ALL, EVERY_ROW)
                writer.power(slots, "branch", x * 2)
                writer.power(slots, "stream_out", x + 1)

    deferred, direct = _rows(plan, feed)
    _same(deferred, direct)
    mean = (first.output.square().sum((0, 2, 3)) + second.output.square().sum((0, 2, 3))) / 6
    np.testing.assert_allclose(deferred[plan.columns["attention_norm"]][:4], mean.sqrt(), rtol=1e-6)
    assert (deferred[plan.columns["keys"]] == 11).all()
    assert (deferred[plan.columns["bias"]] == 2).all()
    np.testing.assert_allclose(deferred[plan.columns["branch_ratio"]], 2.0, rtol=1e-6)


def test_a_tensor_that_several_layers_read_counts_for_each():
    plan, x = _plan(4, 4, 4), torch.randn(2, 3, 8)

    def feed(writer):
        for slots in plan.slots:
            writer.power(slots, "stream_in", x)
            writer.power(slots, "stream_out", x)

    for row in _rows(plan, feed):
        np.testing.assert_allclose(row[plan.columns["block_growth"]], 1, rtol=1e-6)


def test_a_tensor_that_was_changed_in_place_is_measured_again():
    plan, x = _plan(4), torch.ones(2, 3, 8)

    def feed(writer):
        x.fill_(1)
        writer.power(plan.slots[0], "stream_in", x)
        x.mul_(3)
        writer.power(plan.slots[0], "stream_out", x)

    for row in _rows(plan, feed):
        assert row[plan.columns["block_growth"]] == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_not_finite_stay_with_their_layer(bad):
    plan = _plan(2, 2)
    good, odd = _call(0, 2, 2), _call(1, 2, 2)
    odd.problem.query[0, 1, 3] = bad
    odd = odd._replace(output=sigmoid_attention(odd.problem))

    def feed(writer):
        for slots, call in zip(plan.slots, (good, odd), strict=True):
            writer.call(slots, call, ALL, EVERY_ROW)

    for row in _rows(plan, feed):
        finite = np.isfinite(row[plan.columns["logit_mean"]])
        assert finite.tolist() == [True, True, True, False]
        assert np.isfinite(row[plan.columns["attention_norm"]][:3]).all()


@pytest.mark.parametrize("kind", [DeferredWriter, DirectWriter])
def test_a_flushed_step_leaves_nothing_for_the_next(kind):
    plan = _plan(2)
    buffer = torch.tensor(plan.initial)
    writer = kind(plan, buffer)
    rows = []
    for _ in range(2):
        writer.call(plan.slots[0], _call(0, 2, 2), ALL, EVERY_ROW)
        writer.power(plan.slots[0], "branch", torch.ones(4))
        writer.flush()
        rows.append(finalise(buffer.numpy(), plan))
        buffer.copy_(torch.tensor(plan.initial))
    np.testing.assert_array_equal(rows[0], rows[1])
    writer.flush()
    np.testing.assert_array_equal(buffer.numpy(), plan.initial)
