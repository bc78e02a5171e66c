"""On a CUDA device: the same bits, and no synchronisation anywhere in the hooks."""

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import Schedule, preflight, watch
from stabmon.nn import Block, SigmoidAttention
from stabmon.series import is_missing

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def _model():
    torch.manual_seed(0)
    blocks = [Block(64, SigmoidAttention(64, 2, max_length=128, is_causal=True), layer_scale=0.5) for _ in range(2)]
    return nn.Sequential(*blocks, nn.Dropout(0.1)).cuda()


def _train(model, optimizer, steps, monitor=None, first=0):
    for step in range(first, first + steps):
        x = torch.randn(4, 128, 64, generator=torch.Generator().manual_seed(step)).cuda()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if monitor:
            monitor.log(loss=loss)


def test_training_has_the_same_bits_with_the_monitor(quiet, kept):
    plain, watched = _model(), _model()
    torch.manual_seed(1)
    _train(plain, torch.optim.AdamW(plain.parameters()), 5)
    optimizer = torch.optim.AdamW(watched.parameters())
    torch.manual_seed(1)
    with watch(watched, optimizer, **quiet) as monitor:
        _train(watched, optimizer, 5, monitor)
        assert not monitor.failures
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sorted(kept.rows) == [0, 1, 2, 3, 4]
    assert not is_missing(kept.rows[4]).any()
    assert np.isfinite(kept.rows[4]).all()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_hook_waits_for_the_device(quiet, kept):
    model = _model()
    optimizer = torch.optim.AdamW(model.parameters())
    with watch(model, optimizer, schedule=Schedule(rows=64), **quiet) as monitor:
        _train(model, optimizer, 2, monitor)
        x = torch.randn(4, 128, 64).cuda()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                loss = model(x).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                monitor.log(loss=loss)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert not monitor.failures
    assert sorted(kept.rows) == [0, 1, 2, 3, 4]


def test_cuda_graphs_of_a_compiled_model_record_the_numbers_of_the_model_itself(quiet, kept):
    rows = []
    for mode in (None, "reduce-overhead"):
        torch.compiler.reset()
        model = _model()
        model[2].p = 0.0
        optimizer = torch.optim.AdamW(model.parameters(), capturable=True)
        with watch(model, optimizer, schedule=Schedule(rows=1000), **quiet) as monitor:
            called = model if mode is None else torch.compile(model, mode=mode)
            for step in range(6):
                torch.compiler.cudagraph_mark_step_begin()
                _train(called, optimizer, 1, monitor, first=step)
            assert not monitor.failures
        rows.append({step: row.copy() for step, row in kept.rows.items()})
        kept.rows.clear()
    assert rows[0].keys() == rows[1].keys() == set(range(6))
    for step, row in rows[0].items():
        np.testing.assert_allclose(rows[1][step], row, rtol=0.1, atol=1e-2)


def test_preflight_runs_on_the_device():
    report = preflight(_model(), torch.randn(2, 128, 64).cuda())
    assert 0.1 < report.rows[0].twin_ratio < 3
