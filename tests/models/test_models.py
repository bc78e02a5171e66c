"""Models of other libraries: what is recorded is complete, the trained bits are the same, and the table is true."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import stabmon
from tests.models.table import on_page, row
from tests.models.zoo import ZOO
from tests.transformers_models import CASES

PAGE = on_page()
HERE = [name for name, entry in ZOO.items() if entry.is_there]


@pytest.mark.parametrize("name", HERE)
def test_the_table_of_the_docs_says_what_works(name):
    assert row(name, ZOO[name]) == PAGE[name], "python -m tests.models.table writes it anew"


def _trained(name, steps, watched):
    entry = ZOO[name]
    torch.manual_seed(0)
    model = entry.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    monitor = stabmon.watch(model, optimizer, dir=None, console=False, trackers=False) if watched else None
    for step in range(steps):
        loss = entry.loss(model, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if monitor is not None:
        monitor.close()
    return model.state_dict(), monitor


@pytest.mark.parametrize("name", HERE)
def test_the_trained_bits_are_the_same_with_the_monitor(name):
    plain, _ = _trained(name, 3, watched=False)
    watched, monitor = _trained(name, 3, watched=True)
    assert monitor.map.attentions
    assert all(torch.equal(plain[key], watched[key]) for key in plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_thirty_steps_with_sigmoid_give_the_same_bits_with_the_monitor(name):
    plain, _ = _trained(f"{name} (sigmoid)", 30, watched=False)
    watched, monitor = _trained(f"{name} (sigmoid)", 30, watched=True)
    assert monitor.steps == 30
    assert not monitor.failures
    assert all(torch.equal(plain[key], watched[key]) for key in plain)


@pytest.mark.parametrize("name", CASES)
def test_a_bias_of_zero_is_flagged_at_step_0_in_every_layer(name):
    case = CASES[name]
    model = case.build(sigmoid_bias=0.0)
    report = stabmon.preflight(model, case.batch(length=16))
    flagged = {finding.layer for finding in report.findings if finding.severity is not stabmon.Severity.INFO}
    assert flagged == {attention.layer for attention in report.map.attentions}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "vit", "t5"])  # decoder, window, encoder, both with a position bias
def test_the_monitor_breaks_no_graph_and_adds_one_for_recorded_steps(name):
    case, counter = CASES[name], CompileCounter()
    torch.compiler.reset()
    model = case.build()
    model.loss_type = model.loss_type or "ForCausalLM"  # GPT-2's is unset, which is logged within the graph
    schedule = stabmon.Schedule(dense=0, every=2)
    with stabmon.watch(model, dir=None, console=False, trackers=False, schedule=schedule) as monitor:
        compiled = torch.compile(model, backend=counter, fullgraph=True)
        for _ in range(4):
            compiled(**case.batch()).loss.backward()
            monitor.step()
    assert not monitor.failures
    assert counter.frame_count == 2
