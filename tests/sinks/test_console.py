import contextlib
import io
import os
import sys
from datetime import UTC, datetime

import pytest
import torch
from rich.console import Console

from stabmon import watch
from stabmon.findings import Finding
from stabmon.fixes.change import Safety
from stabmon.fixes.record import Fix
from stabmon.nn import Block, SigmoidAttention
from stabmon.records import Evidence, ModelMap, RunInfo, RunState, Severity
from stabmon.series import Layout
from stabmon.sinks import ConsoleSink

INFO = RunInfo(name="lm", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=7))
FIX = Fix(kind="bias", module="m", value=-5.5, safety=Safety.ANY_TIME, why="w", code="bias.fill_(-5.5)\nand more")


def finding(layer="layers.0", opened=0, **changes):
    whole = {
        "code": "ATT001",
        "name": "large-initial-attention-norm",
        "severity": Severity.ERROR,
        "evidence": Evidence.PAPER,
        "head": 5,
        "metric": "attention_norm",
        "value": 9.0,
        "limit": 2.0,
        "message": "the norm is [9.0], limit 2.0",
        "cause": "",
        "peak": opened,
        "last": opened,
        "fixes": (FIX,),
    }
    return Finding(**whole | changes | {"layer": layer, "opened": opened})


@pytest.fixture
def printed():
    stream = io.StringIO()
    sink = ConsoleSink(Console(file=stream, highlight=False, width=40))
    sink.start(INFO, Layout.of([]))

    def after(*calls):
        for changed in calls:
            sink.findings(changed)
        sink.close(RunState.FINISHED)
        return stream.getvalue().splitlines()

    return after


def test_one_finding_is_one_line_without_colours_outside_a_terminal(printed):
    assert printed([finding()]) == [
        "stabmon: error ATT001 large-initial-attention-norm in layers.0 head 5 since step 0: "
        "the norm is [9.0], limit 2.0. Fix: bias = -5.5 in m."
    ]


def test_many_layers_of_one_rule_share_a_line(printed):
    lines = printed([finding(f"layers.{number}") for number in (10, 2, 0)])
    assert len(lines) == 1
    assert "in 3 of layers.0 to layers.10 since step 0: the norm is [9.0], limit 2.0 (in layers.0)." in lines[0]


def test_what_grows_or_clears_is_not_printed_again(printed):
    assert len(printed([finding()], [finding(value=20.0, last=3)], [finding(cleared=4)])) == 1


def test_what_opens_again_is_printed_but_not_for_ever(printed):
    lines = printed(*[[finding(opened=step)] for step in range(9)])
    assert len(lines) == 6
    assert lines[4].endswith("(more of ATT001 are not printed)")
    assert lines[5] == "stabmon: 4 more of ATT001: see `stabmon findings` for lm"


def test_errors_come_first_and_a_finding_of_the_run_names_no_layer(printed):
    mild = finding(None, code="LOS001", name="loss-spike", severity=Severity.WARNING, head=None, fixes=())
    lines = printed([mild, finding()])
    assert lines[0].startswith("stabmon: error ATT001")
    assert lines[1] == "stabmon: warning LOS001 loss-spike since step 0: the norm is [9.0], limit 2.0."


def test_a_symptom_is_printed_under_its_cause_without_a_fix_of_its_own(printed):
    follows = ("ATT001", "layers.0", 0)
    symptom = finding(code="RES001", name="branch-dominates-residual", severity=Severity.WARNING, follows=follows)
    lines = printed([symptom, finding()])
    assert lines[0].startswith("stabmon: error ATT001")
    assert lines[1] == (
        "stabmon:   └ warning RES001 branch-dominates-residual in layers.0 head 5 since step 0: "
        "the norm is [9.0], limit 2.0. It follows from ATT001 of step 0."
    )


def test_a_closed_missing_or_ascii_standard_error_fails_the_console_alone(monkeypatch, capfd):
    poor = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", poor)
    sink = ConsoleSink()
    sink.findings([finding(message="σ is large")])
    poor.flush()
    assert b"\\u03c3 is large" in poor.buffer.getvalue()
    monkeypatch.setattr(sys, "stderr", None)
    ConsoleSink().findings([finding()])
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        with pytest.raises(BrokenPipeError):
            ConsoleSink().findings([finding()])
        monkeypatch.undo()
        with contextlib.suppress(BrokenPipeError):
            gone.close()
    print("still there", flush=True)
    assert capfd.readouterr().out == "still there\n"


def test_a_module_named_like_markup_is_printed_and_not_obeyed(capsys, tmp_path):
    model = torch.nn.Sequential()
    model.add_module("[/red]\x1b[31m", Block(16, SigmoidAttention(16, 2, max_length=8, is_causal=True)))
    with watch(model, dir=tmp_path, batch=torch.zeros(1, 8, 16)):
        pass
    said = "".join(capsys.readouterr().err.split())
    assert "[/red]" in said
    assert "\x1b[31m" not in said
