"""Query and key norms: on every path into the buffer the same numbers, those of float64 over the same tokens."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from stabmon.hooks import Recording
from stabmon.hooks.forward import CallObserver
from stabmon.kernels import AuxOutput, AuxRequest
from stabmon.kernels.eager.reference import sigmoid_attention
from stabmon.kernels.observe import Call
from stabmon.kernels.problem import Problem
from stabmon.kernels.visibility import sampled_rows
from stabmon.nn import SigmoidAttention
from stabmon.preflight_check.check import measure
from stabmon.records import Attention
from stabmon.stats import Plan, finalise
from stabmon.stats.deferred_writer import DeferredWriter
from stabmon.stats.direct_writer import DirectWriter
from stabmon.stats.measured import with_output
from stabmon.stats.multihead import add_multihead
from stabmon.stats.rows import row_statistics

BATCH, HEADS, LENGTH, WIDTH = 2, 2, 64, 16
REQUEST = AuxRequest(rows=16, offset=0.25)
TOKENS = slice(1, None, 4)
"""Every fourth token, from a quarter of four on: one of each of the 16 strata."""


def _plan(kind="sigmoid"):
    names = {"layer": "a", "module": "a", "block": "", "branch": "a"}
    return Plan([Attention(kind=kind, heads=HEADS, head_dim=WIDTH // HEADS, **names)])


@pytest.fixture
def call():
    generator = torch.Generator().manual_seed(0)
    growing = torch.linspace(0.1, 3, LENGTH)[:, None]  # which tokens are taken must matter
    query, key, value = torch.randn(3, BATCH, HEADS, LENGTH, WIDTH // HEADS, generator=generator)
    problem = Problem(query * growing, key * growing.flip(0), value, None, -1.0, None, 8**-0.5, True)
    return Call(problem, sigmoid_attention(problem))


def _with_statistics(call):
    """Return ``call`` as a kernel that works out statistics shows it."""
    statistics = with_output(call.output, row_statistics(call.problem, REQUEST))
    return call._replace(aux=AuxOutput(statistics, "triton", "tanh"))


def _by(writer_of, change):
    def path(call):
        plan = _plan()
        buffer = torch.tensor(plan.initial)
        writer = writer_of(plan, buffer)
        writer.call(plan.slots[0], change(call), slice(None), REQUEST)
        writer.flush()
        return plan, buffer

    return path


def _multihead_attention(call):
    """Measure nn.MultiheadAttention whose projections give the queries and keys of ``call``."""
    module = nn.MultiheadAttention(WIDTH, HEADS, bias=False, batch_first=True)
    module.in_proj_weight.data.copy_(torch.eye(WIDTH).repeat(3, 1))
    inputs = tuple(part.transpose(1, 2).flatten(2) for part in call.problem[:3])
    plan = _plan("softmax")
    buffer = torch.tensor(plan.initial)
    writer = DirectWriter(plan, buffer)
    add_multihead(writer, plan.slots[0], module, inputs, {}, lambda batch: REQUEST)
    writer.flush()
    return plan, buffer


def _softmax_attention(call):
    plan = _plan("softmax")
    recording = Recording(plan, torch.device("cpu"), rows=BATCH * REQUEST.rows)
    recording.offset = REQUEST.offset
    CallObserver(recording, "a", plan.slots).add(call._replace(kind="softmax"))
    recording.flush()
    return plan, recording.buffer


def _deferred(plan, buffer):
    return DeferredWriter(plan, buffer)


def _direct(plan, buffer):
    return DirectWriter(plan, buffer)


PATHS = {
    "deferred": _by(_deferred, lambda call: call),
    "deferred-kernel": _by(_deferred, _with_statistics),
    "deferred-window": _by(_deferred, lambda call: call._replace(problem=call.problem._replace(window=LENGTH))),
    "direct": _by(_direct, lambda call: call),
    "direct-kernel": _by(_direct, _with_statistics),
    "multihead-attention": _multihead_attention,
    "softmax-attention": _softmax_attention,
}


@pytest.mark.parametrize("path", PATHS)
def test_norms_are_those_of_the_same_tokens_on_every_path(path, call):
    plan, buffer = PATHS[path](call)
    row = finalise(buffer.numpy(), plan)
    for metric, tokens in (("query_norm", call.problem.query), ("key_norm", call.problem.key)):
        expected = tokens[:, :, TOKENS].double().square().sum(-1).mean((0, 2)).sqrt()
        np.testing.assert_allclose(row[plan.columns[metric]], expected, rtol=1e-6, err_msg=metric)


def test_the_tokens_are_the_sampled_rows():
    rows = sampled_rows(LENGTH, REQUEST.rows, REQUEST.offset, torch.device("cpu"))
    assert torch.equal(rows, torch.arange(LENGTH)[TOKENS])


CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
)


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_preflight_takes_the_norms_of_the_same_tokens(device):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = SigmoidAttention(WIDTH * 2, HEADS, max_length=1024)

        def forward(self, x):
            return x + self.attention(x)

    torch.manual_seed(0)
    model, x = Model(), torch.randn(1, 1024, WIDTH * 2)
    query, key, _ = copy.deepcopy(model.attention).double().project(x.double())
    start = measure(model.to(device), x.to(device))
    for metric, tokens in (("query_norm", query), ("key_norm", key)):
        at = start.layout.of_metric(metric)[0].start
        expected = tokens[:, :, 2::4].square().sum(-1).mean((0, 2)).sqrt().detach()  # 256 of 1024 tokens
        np.testing.assert_allclose(start.row[at : at + HEADS], expected, rtol=1e-5, err_msg=metric)
