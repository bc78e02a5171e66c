"""Limits, rules and silence of a watched run, and that a replay and a run that goes on find the same."""

import pytest
import torch

from stabmon import watch
from stabmon.errors import ConfigError
from stabmon.rules import Limits, replay
from stabmon.store import open_run

LOW = {"att.row_mass_max": 0.01}
ELSEWHERE = Limits.from_mapping({"layer.9/att.row_mass_max": 1})


def train(model, loss, monitor, steps):
    for step in steps:
        loss(model, step).backward()
        monitor.step()


def test_a_run_stores_its_limits_so_that_a_replay_has_the_same_findings(tiny, tmp_path, loss):
    model = tiny()
    (tmp_path / "limits.yaml").write_text("att.row_mass_max: 0.01\nignore: [CFG001]\n")
    options = {"dir": tmp_path, "console": False, "limits": tmp_path / "limits.yaml", "ignore": ("RES001",)}
    with watch(model, name="one", **options) as monitor:
        train(model, loss, monitor, range(3))
        live = monitor.findings
    assert "ATT001" in {finding.code for finding in live}
    with open_run(tmp_path / "one") as run:
        assert run.info.limits == {"att.row_mass_max": 0.01, "ignore": ["CFG001", "RES001"]}
        again = replay(run)
        assert run.findings() == sorted(again, key=lambda found: (found.opened, found.code, found.layer or ""))
    assert [finding.key for finding in again] == [finding.key for finding in live]


def test_a_resumed_run_has_the_findings_of_an_uninterrupted_one(tiny, tmp_path, loss):
    limits = Limits.from_mapping(LOW)
    found = []
    for name, pieces in (("whole", [range(6)]), ("broken", [range(3), range(3, 6)])):
        model = tiny()
        for steps in pieces:
            options = {"resume": steps.start > 0, "first_step": steps.start, "limits": limits}
            with watch(model, dir=tmp_path, name=name, console=False, **options) as monitor:
                train(model, loss, monitor, steps)
        with open_run(tmp_path / name) as run:
            found.append([finding.model_dump_json() for finding in run.findings()])
    assert found[0] == found[1] != []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": "nowhere.yaml"}, "cannot read the limits nowhere.yaml"),
        ({"ignore": ["ATT01"]}, "did you mean 'ATT001'"),
        ({"rules": ["nowhere.py"]}, "there is no such file"),
        ({"limits": ELSEWHERE, "batch": torch.zeros(1, 4, dtype=torch.long)}, "no layer is called 'layer.9'"),
    ],
    ids=["limits", "ignore", "rules", "layers"],
)
def test_wrong_limits_and_rules_are_refused_and_leave_the_model_unwatched(options, message, tiny):
    model = tiny()
    with pytest.raises(ConfigError, match=message):
        watch(model, dir=None, console=False, **options)
    watch(model, dir=None, console=False).close()


def test_limits_of_unknown_layers_cost_a_training_these_limits_alone(tiny, quiet, kept, loss):
    model = tiny()
    with watch(model, limits=ELSEWHERE.changed(LOW), **quiet) as monitor:
        train(model, loss, monitor, range(2))
        assert "ATT001" in {finding.code for finding in monitor.findings}
        (said,) = monitor.failures
    assert said.startswith("limits: no layer is called 'layer.9'")
    assert kept.info.limits == LOW
