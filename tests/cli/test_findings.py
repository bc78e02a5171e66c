"""``stabmon findings``: as stored, and as the rules say when they are run again."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from stabmon.cli import app
from stabmon.errors import ConfigError
from stabmon.records import Attention, ModelMap, RunInfo, RunState
from stabmon.series import Layout
from stabmon.store import RunWriter

OWN = '''
from stabmon.records import Evidence, Severity
from stabmon.rules import Observation, Explanation, rule

@rule("USR001", "loss-below-two", severity=Severity.INFO, evidence=Evidence.MEASURED)
def loss_below_two(run, limits):
    """Flag a loss below two.

    What it checks: the loss.
    Why it matters: it is good.
    Suggested fix: none.
    When the fix is wrong: never.
    References: none.
    """
    for hit in run.series("loss").below(2.0):
        yield Observation(hit, lambda: Explanation("the loss is low", "it learns", run.cells(None, "loss")))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a run whose first layer's rows sum to 8, by limits of its own, and whose loss falls below 2."""
    attentions = tuple(
        Attention(
            layer=f"layers.{i}",
            module=f"layers.{i}.attention",
            block=f"layers.{i}",
            branch=f"layers.{i}.scale",
            kind="sigmoid",
            heads=2,
            head_dim=8,
            max_length=64,
        )
        for i in range(2)
    )
    info = RunInfo(
        name="lm",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        model=ModelMap(attentions=attentions, parameters=1),
        limits={"att.row_mass_max": 7.0, "ignore": ["RES001"]},
    )
    layout = Layout.of([("row_mass", "layers.0", 2), ("row_mass", "layers.1", 2), ("loss", None, 1)])
    writer = RunWriter.create(tmp_path / "lm", info, layout)
    for step in range(4):
        writer.sample(step, 1e9 + step, np.array([8, 8, 1, 1, 3 - step], np.float32))
    writer.close(RunState.FINISHED)
    return tmp_path / "lm"


def codes(*arguments: str | Path, code: int = 0) -> list[tuple[str, str | None]]:
    done = CliRunner().invoke(app, ["findings", *map(str, arguments), "--json"])
    assert done.exit_code == code, done.output
    return [(one["code"], one["layer"]) for one in json.loads(done.stdout)]


def test_a_replay_uses_the_run_s_own_limits_unless_others_are_given(folder: Path, tmp_path: Path) -> None:
    assert codes(folder) == []
    assert codes(folder, "--replay", code=1) == [("ATT001", "layers.0")]
    assert codes(folder, "--replay", "--set", "att.row_mass_max=9") == []
    assert codes(folder, "--set", "layers.1/att.row_mass_max=0.5", code=1) == [
        ("ATT001", "layers.0"),
        ("ATT001", "layers.1"),
    ]
    assert codes(folder, "--ignore", "ATT001") == []
    (tmp_path / "limits.yaml").write_text("att: {row_mass_max: 20}\nlayers:\n  'layers.*': {att.row_mass_max: 0.9}\n")
    assert len(codes(folder, "--limits", tmp_path / "limits.yaml", code=1)) == 2


def test_a_users_rule_is_read_from_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    assert codes(folder, "--rules", tmp_path / "own.py", "--ignore", "ATT001") == [("USR001", None)]
    assert codes(folder, "--ignore", "ATT001") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "att.row_mas_max=6"), "unknown limit 'att.row_mas_max'; did you mean 'att.row_mass_max'"),
        (("--set", "att.row_mass_max"), "NAME=NUMBER"),
        (("--set", "layer.9/att.row_mass_max=6"), r"no layer is called 'layer.9'.*did you mean 'layers\."),
        (("--ignore", "ATT01"), "unknown rule 'ATT01'; did you mean 'ATT001'"),
        (("--limits", "nowhere.yaml"), "cannot read the limits nowhere.yaml"),
        (("--rules", "nowhere.py"), "there is no such file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_limits_and_rules_are_refused_with_the_reason(
    arguments: tuple[str, str], message: str, folder: Path
) -> None:
    done = CliRunner().invoke(app, ["findings", str(folder), *arguments])
    assert isinstance(done.exception, ConfigError)
    with pytest.raises(ConfigError, match=message):
        raise done.exception


def test_the_layers_of_a_rule_share_a_row_and_fit_a_terminal(folder: Path) -> None:
    done = CliRunner().invoke(app, ["findings", str(folder), "--set", "att.row_mass_max=0.5"])
    lines = [line.rstrip() for line in done.output.splitlines()]
    (at,) = [number for number, line in enumerate(lines) if "error ATT001" in line]
    assert "layers.0 and layers.1" in lines[at]
    assert "since step 0" in lines[at + 1]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os._exit(0)", r"own\.py: the rules ended their own process, with exit code 0"),
        ("raise SystemExit(0)", r"own\.py: the rules ended their own process, with exit code 0"),
        ("\nwhile True: pass", r"own\.py, line 2: TimeoutError: not done after 1 s, see --rules-timeout"),
        (
            "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\nwhile True: pass",
            "the rules were not done after 1 s and were ended; see --rules-timeout",
        ),
        (
            OWN.replace('    for hit in run.series("loss").below(2.0):', "    while True: pass\n    for hit in ():"),
            r"rules failed .*: USR001: TimeoutError: not done after 1 s",
        ),
        (OWN.replace('"loss").below', '"loss").nowhere'), r"rules failed .*: USR001: AttributeError: .*nowhere"),
        (
            OWN.replace('    for hit in run.series("loss").below(2.0):', "    exit(0)\n    for hit in ():"),
            r"rules failed .*: USR001: SystemExit: ",
        ),
    ],
    ids=["exits", "raises SystemExit", "loops", "loops without an alarm", "rule loops", "rule raises", "rule exits"],
)
def test_rules_that_exit_raise_or_loop_never_end_healthy(code, message, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(code)
    arguments = ["findings", str(folder), "--rules", str(tmp_path / "own.py"), "--ignore", "ATT001"]
    done = CliRunner().invoke(app, [*arguments, "--rules-timeout", "1"] if "while" in code else arguments)
    with pytest.raises(ConfigError, match=message):
        raise done.exception


def test_what_a_rules_file_prints_is_not_mixed_into_the_json(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("print('hello')" + OWN)
    assert codes(folder, "--rules", tmp_path / "own.py", "--ignore", "ATT001") == [("USR001", None)]


def test_a_crash_and_lost_samples_are_reported_with_the_findings(folder: Path) -> None:
    from contextlib import closing
    from sqlite3 import connect

    assert "State of the run" not in CliRunner().invoke(app, ["findings", str(folder)]).output
    with closing(connect(folder / "run.sqlite")) as connection, connection:
        connection.execute("UPDATE heartbeat SET dropped = 3")
    done = CliRunner().invoke(app, ["findings", str(folder)])
    assert "State of the run: finished, 3 of " in done.output
    assert "samples lost." in done.output
