"""Exit codes of the commands: healthy, a finding, wrong use, a crash, an interruption, lost output."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stabmon.cli import app
from stabmon.cli.run import ended
from stabmon.errors import ConfigError
from tests import damaged_runs


def run(*arguments: str | Path) -> int:
    return ended(lambda: app([str(argument) for argument in arguments]))


def raising(error: BaseException) -> int:
    def command() -> None:
        raise error

    return ended(command)


def test_a_crash_is_not_a_finding_and_its_traceback_is_kept(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert raising(KeyError("[/red]\x1b")) == 70
    said = " ".join(capsys.readouterr().err.split())
    assert "internal error, a mistake in stabmon: KeyError: '[/red]" in said
    assert "\x1b" not in said
    (kept,) = tmp_path.iterdir()
    assert str(kept) in said.replace(" ", "")
    assert "Traceback" in kept.read_text()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("wrong"), 2),
        (PermissionError(13, "Permission denied", "x"), 2),
        (MemoryError(), 2),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 2),
        (RuntimeError("another"), 70),
        (RecursionError("deep"), 70),
        (KeyboardInterrupt(), 130),
        (SystemExit(1), 1),
    ],
    ids=lambda value: repr(value),
)
def test_every_end_has_its_code(error, code, capsys):
    assert raising(error) == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("replay", [(), ("--replay",), ("--json",)], ids=["stored", "replay", "json"])
@pytest.mark.parametrize("name", damaged_runs.DAMAGED)
def test_findings_of_a_damaged_run_end_with_2_and_its_reason(name, replay, tmp_path, capsys):
    damaged_runs.make(tmp_path / "odd", name)
    assert run("findings", tmp_path / "odd", *replay) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(damaged_runs.SAYS, " ".join(said.err.split()))


def test_findings_as_json_hold_no_number_that_json_has_not(tmp_path, capsys):
    damaged_runs.healthy(tmp_path / "lm")
    infinite = 'UPDATE finding SET document = replace(document, \'"value":1.0\', \'"value":"Infinity"\')'
    damaged_runs.sql(infinite)(tmp_path / "lm")
    assert run("findings", tmp_path / "lm", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["value"] == "Infinity"


TINY = """
name: tiny
workload: language
model: {layers: 1, width: 32, heads: 2, context: 64, bias: 0.0}
training: {steps: 2, batch: 2, learning_rate: 1e-3, warmup: 1, clip: 1.0, seed: 0}
"""
COMMANDS = {  # with the exit code that each has when its output arrives
    "rules": (["rules", "ATT001"], 0),
    "findings": (["findings", "lm"], 0),
    "findings as json": (["findings", "lm", "--json"], 0),
    "report": (["report", "lm", "--output", "lm.html"], 0),
    "export": (["export", "lm", "--output", "lm.csv"], 0),
    "preflight": (["preflight", "tiny.yaml"], 1),
    "train": (["train", "tiny.yaml", "--dir", "runs"], 1),
    "try": (["try", "tiny.yaml", "--steps", "2", "--seeds", "1"], 0),
}
LOST = {
    "closed": (2, "standard output is closed"),
    "full": (2, "cannot write to standard output: No space left on device"),
    "no reader": (141, ""),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Return exit code and standard error of each command, for each state of standard output."""
    folder = tmp_path_factory.mktemp("lost")
    damaged_runs.healthy(folder / "lm")
    (folder / "tiny.yaml").write_text(TINY)
    script = Path(__file__).with_name("lost_output.py")
    commands = json.dumps({name: call for name, (call, _) in COMMANDS.items()})
    given = [sys.executable, script, folder, commands]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(given, capture_output=True, text=True, check=True, cwd=folder, env=environment)
    return json.loads(done.stdout)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_does_not_arrive_has_its_exit_code_and_one_line(command, ends):
    for state, (code, said) in LOST.items():
        end = ends[command][state]
        assert (state, end["code"]) == (state, code)
        assert said in " ".join(end["errors"].split())
        assert "Traceback" not in end["errors"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_that_knows_latin_1_only_gets_every_line(command, ends):
    assert ends[command]["latin-1"]["code"] == COMMANDS[command][1], ends[command]["latin-1"]["errors"]
