"""Trainings in several threads: each record is that of the training alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from stabmon import Schedule, watch
from tests.watched_model import Kept, Tiny, loss_of

STEPS = 5


def _model(seed):
    torch.manual_seed(seed)
    model = Tiny(max_length=12 + seed)
    model.dropout.p = 0.0  # which draws from one generator for all threads
    return model


def _train(model, meet=lambda: None, forward=lambda call: call()):
    kept = Kept()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for layer in model.layers:
        layer.attention.register_forward_pre_hook(lambda *_: meet() if torch.is_grad_enabled() else None)
    schedule = Schedule(rows=1000)
    with watch(model, optimizer, dir=None, console=False, sinks=[kept], schedule=schedule) as monitor:
        for step in range(STEPS):
            loss = forward(lambda step=step: loss_of(model, step))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            monitor.log(loss=loss)
        assert monitor.failures == ()
    return kept.rows


def _same(rows, expected):
    assert rows.keys() == expected.keys()
    for step in rows:
        np.testing.assert_array_equal(rows[step], expected[step])


def test_two_models_that_train_in_two_threads_record_what_each_records_alone():
    alone = [_train(_model(seed)) for seed in range(2)]
    both = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda model: _train(model, lambda: [both.wait()].clear()), [_model(0), _model(1)]))
    for rows, expected in zip(together, alone, strict=True):
        _same(rows, expected)
    assert torch.backends.mha.get_fastpath_enabled()


def test_passes_in_another_thread_than_the_step_are_recorded():
    with ThreadPoolExecutor(1) as pool:
        rows = _train(_model(0), forward=lambda call: pool.submit(call).result())
    _same(rows, _train(_model(0)))
