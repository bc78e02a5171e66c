"""Every command with every kind of wrong argument: exit code 2, the reason on standard error, nothing on the other."""

from pathlib import Path

import pytest

from stabmon import config
from stabmon.cli import app
from stabmon.cli.run import ended

COMMANDS = (
    "demo",
    "train",
    "preflight",
    "serve",
    "mcp",
    "findings",
    "report",
    "export",
    "compare",
    "rules",
    "metrics",
    "evaluate",
    "bench",
    "selftest",
    "try",
    "reproduce",
)
TRAINING = {
    "demo": ("demo", "--no-serve"),
    "train": ("train", "naive"),
    "preflight": ("preflight", "naive"),
    "try": ("try", "naive"),
    "evaluate": ("evaluate",),
    "bench": ("bench", "--overhead"),
    "reproduce": ("reproduce",),
}
TINY = "name: tiny\nmodel: {layers: 1, width: 16, heads: 2, context: %s}\ntraining: {steps: 2, batch: 2, %s}\n"

CONFIGURATIONS = {
    "missing": None,
    "empty": "",
    "a list": "[1, 2]",
    "billion laughs": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{c}: &{c} [{', '.join(['*' + chr(ord(c) - 1)] * 10)}]\n" for c in "bcdefghijk"),
    "deep": "[" * 5000,
    "a key twice": TINY % (64, "learning_rate: 1e-3") + "name: again\n",
    "an infinite rate": TINY % (64, "learning_rate: 1e400"),
    "a rate that is no number": TINY % (64, "learning_rate: .nan"),
    "a model beyond memory": (TINY % (64, "learning_rate: 1e-3")).replace("width: 16", "width: 16777216"),
    "a number of layers without end": (TINY % (64, "learning_rate: 1e-3")).replace("layers: 1", "layers: 999999999999"),
    "a context beyond the text": TINY % (16_000_000, "learning_rate: 1e-3"),
    "markup and escapes": TINY % (64, '"[/red]\x1b[2J": 1'.replace("\x1b", "\\e")),
    "bytes": b"\xff\xfe\x00",
}


def run(*arguments: str | Path) -> int:
    return ended(lambda: app([str(argument) for argument in arguments]))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run a command that must refuse its arguments; return what it said, as one line."""
    code = run(*arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    assert "\x1b" not in err
    assert err.strip()
    return " ".join(err.split())


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_and_arguments_that_do_not_exist_are_refused(command: str, capsys) -> None:
    assert "No such option" in refused(capsys, command, "--no-such-[/red]-option\x1b[2J")
    assert refused(capsys, command, "[/red]", "[bold]", "too", "many")


@pytest.mark.parametrize("device", ["meta", "cpu:99", "cuda:99", "[/red]", "no such", "\x1b[2J"])
@pytest.mark.parametrize("command", TRAINING)
def test_a_device_that_cannot_be_used_is_refused(command: str, device: str, capsys) -> None:
    assert "cannot be used here" in refused(capsys, *TRAINING[command], "--device", device)


@pytest.mark.parametrize("content", CONFIGURATIONS)
@pytest.mark.parametrize("command", [("train",), ("preflight",), ("try",), ("bench", "--overhead", "--config")])
def test_a_configuration_that_cannot_be_used_is_refused(command, content, tmp_path: Path, capsys) -> None:
    file, text = tmp_path / "[odd].yaml", CONFIGURATIONS[content]
    if isinstance(text, bytes):
        file.write_bytes(text)
    elif text is not None:
        file.write_text(text)
    refused(capsys, *command, file, "--device", "cpu")


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--no-serve", "--dir"),
        ("train", "fixed", "--steps", "1", "--dir"),
        ("evaluate", "--subset", "cpu", "--dir"),
        ("serve",),
        ("findings",),
        ("train",),
        ("preflight",),
        ("evaluate",),
        ("evaluate", "--report"),
        ("evaluate", "--limits"),
    ],
    ids=" ".join,
)
def test_a_file_of_another_kind_is_refused(arguments: tuple[str, ...], tmp_path: Path, capsys) -> None:
    file = tmp_path / "[" / "red]"  # together a closing tag of rich's markup
    file.parent.mkdir()
    file.write_bytes(b"\x00\xff not what is expected")
    more = () if arguments[0] in ("serve", "findings") else ("--device", "cpu")
    refused(capsys, *arguments, file, *more)


@pytest.mark.parametrize(
    "line",
    [
        "demo --steps 1",
        "demo --steps 1e400",
        "train naive --steps 0",
        "train naive --name ../up",
        "train naive --name [/red]",
        "train naive --name",
        "preflight naive --lengths x",
        "preflight naive --lengths 0",
        "preflight naive --lengths 5:",
        "preflight naive --lengths 1:999999999999",
        "try naive --value nan --fix bias",
        "try naive --value 1e400 --fix bias",
        "try naive --value -1 --fix learning_rate",
        "try naive --value 1",
        "try naive --fix nonsense",
        "try naive --seeds 0",
        "evaluate --jobs 0",
        "evaluate --half none",
        "evaluate --report nowhere",
        "evaluate --replay",
        "evaluate --steps 100",
        "evaluate nowhere.yaml",
        "findings nowhere",
        "findings nowhere --replay",
        "findings nowhere --rules nowhere.py",
        "findings . --rules-timeout 0",
        "serve nowhere",
        "serve . --port 99999",
        "serve . --host 256.0.0.1",
        "serve . --host 0.0.0.0",
        "serve . --store mysql://user:secret@host/runs",
        "serve . --store postgresql+psycopg://user:secret@host:port/runs",
        "serve . --token-file nowhere",
        "serve . --token-file .",
        "rules ATT999",
        "rules [/red]",
        "metrics nonsense",
        "metrics [/red]",
        "bench --overhead --steps 1",
        "bench --overhead --config nowhere",
        "bench --backend nonsense",
        "bench --cells nonsense",
        "bench --rounds 0",
    ],
)
def test_values_that_cannot_be_are_refused(line: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STABMON_TOKEN", raising=False)
    assert "secret" not in refused(capsys, *line.split())


def test_an_empty_token_is_refused_from_file_and_environment(tmp_path: Path, capsys, monkeypatch) -> None:
    (tmp_path / "token").write_text("\n")
    assert "the token is empty" in refused(capsys, "serve", tmp_path, "--token-file", tmp_path / "token")
    monkeypatch.setenv("STABMON_TOKEN", "")
    assert "the token is empty" in refused(capsys, "serve", tmp_path)


def test_every_command_is_tried(capsys) -> None:
    assert {command.name or command.callback.__name__ for command in app.registered_commands} == {*COMMANDS}
    assert config.documented()


def test_a_run_name_that_cannot_be_a_folder_is_refused_and_nothing_is_made(tmp_path: Path, capsys) -> None:
    said = refused(capsys, "train", "naive", "--steps", "1", "--device", "cpu", "--name", "[/red]")
    assert "name must be letters, digits and '_'" in said
    assert "'[/red]'" in said
    assert not list(tmp_path.iterdir())
