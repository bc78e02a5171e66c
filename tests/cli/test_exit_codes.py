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


CLOSED = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'stabmon', *sys.argv[1:]])"


def output(stdout, *arguments, code="import sys; from stabmon.cli import main; main()", **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_reported_with_exit_code_2(tmp_path):
    with open("/dev/full", "w") as full:
        done = output(full, "rules", "--json")
    assert (done.returncode, b"cannot write to standard output: No space left on device" in done.stderr) == (2, True)
    done = output(None, "rules", code=CLOSED)
    assert (done.returncode, b"standard output is closed" in done.stderr) == (2, True)
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_the_command_quietly():
    reader, writer = os.pipe()
    os.close(reader)
    done = output(writer, "rules")
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_terminal_that_knows_latin_1_only_gets_every_line():
    done = output(subprocess.PIPE, "rules", "ATT001", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert b"What it checks" in done.stdout
