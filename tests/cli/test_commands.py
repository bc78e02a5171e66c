import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stabmon import cli
from stabmon import config as configuration
from stabmon import demo as story
from stabmon.store import open_run

ROOT = Path(__file__).parent.parent.parent


def in_a_process(*arguments: str | Path, code: int = 0) -> str:
    """Run the command line as a user would and return what it printed, on both streams."""
    command = [sys.executable, "-m", "stabmon", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def stabmon(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command line to its exit code in this process, and return what it printed, on both streams."""

    def run(*arguments: str | Path, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["stabmon", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = "".join(capfd.readouterr())
        assert end.value.code == code, printed
        return printed

    return run


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_version_and_help_answer(stabmon: Callable[..., str]) -> None:
    assert in_a_process("--version").startswith("stabmon 0.")
    assert "preflight" in stabmon("--help")


def test_rules_lists_every_code_and_prints_one_with_its_limits(stabmon: Callable[..., str]) -> None:
    listed = json.loads(stabmon("rules", "--json"))
    assert {"ATT001", "NUM001", "CFG001"} <= {rule["code"] for rule in listed}
    one = json.loads(stabmon("rules", "starved-rows", "--json"))
    assert one["code"] == "ATT002"
    assert all(limit["unit"] and limit["source"] for limit in one["limits"])
    assert "When the fix is wrong" in stabmon("rules", "ATT001")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rules", "ATT999"), "unknown rule 'ATT999'"),
        (("findings", "nowhere"), "nowhere"),
        (("preflight", "nothing.yaml"), "cannot read the configuration nothing.yaml"),
        (("train", "naive", "--device", "cuda:9"), "cuda:9"),
        (("serve", "nowhere"), "nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_wrong_use_exits_with_2_and_says_what_to_do(
    arguments: tuple[str, ...], said: str, stabmon: Callable[..., str]
) -> None:
    assert said in one_line(stabmon(*arguments, code=2))


def test_a_typo_in_a_configuration_names_the_nearest_key(tmp_path: Path, stabmon: Callable[..., str]) -> None:
    file = tmp_path / "typo.yaml"
    file.write_text((ROOT / "configs" / "naive.yaml").read_text().replace("learning_rate", "learning_rat"))
    assert "learning_rate" in one_line(stabmon("train", file, "--dir", tmp_path, code=2))


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in in_a_process("serve", tmp_path, "--port", port, code=2)


@pytest.mark.slow
def test_preflight_flags_the_naive_run_and_passes_the_fixed_one(stabmon: Callable[..., str]) -> None:
    report = json.loads(stabmon("preflight", "naive", "--json", code=1))
    assert {finding["code"] for finding in report["findings"]} >= {"ATT001"}
    assert json.loads(stabmon("preflight", "fixed", "--json"))["findings"] == []


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, object]]]:
    """The documented demo with a smaller batch, which changes no bias and no rule; ``.ci/run`` runs it as it is."""
    folder = tmp_path_factory.mktemp("runs")
    small = configuration.override(story.default_config("cpu"), {"training.batch": 2})
    options = ["demo", "--dir", str(folder), "--json", "--steps", "20", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(story, "default_config", lambda device: small)
        done = CliRunner().invoke(cli.app, options)
    assert done.exit_code == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.slow
def test_the_demo_prints_one_json_object_with_both_runs(demo: tuple[Path, dict[str, dict[str, object]]]) -> None:
    _, report = demo
    assert set(report) == {"naive", "fixed"}
    for run in report.values():
        assert set(run) >= {"name", "path", "bias", "final_loss", "overhead_percent", "findings"}
    assert not report["naive"]["healthy_at_step_zero"]
    assert report["fixed"]["healthy_at_step_zero"]
    assert report["naive"]["bias"] == 0.0


@pytest.mark.slow
def test_both_runs_of_the_demo_lie_in_the_folder_with_store_and_events(
    demo: tuple[Path, dict[str, dict[str, object]]],
) -> None:
    folder, report = demo
    for run in report.values():
        path = folder / str(run["name"])
        assert (path / "run.sqlite").is_file()
        assert list(path.glob("events.out.tfevents.*"))
        stored = open_run(path).info.config  # the fixed run's is the one that it trained with
        assert stored["model"]["bias"] == pytest.approx(run["bias"], abs=0.005)


@pytest.mark.slow
def test_findings_of_the_naive_run_are_errors_and_those_of_the_fixed_one_are_not(
    demo: tuple[Path, dict[str, dict[str, object]]], stabmon: Callable[..., str]
) -> None:
    folder, _ = demo
    assert "ATT001" in stabmon("findings", folder / "naive", code=1)
    assert not [
        one for one in json.loads(stabmon("findings", folder / "fixed", "--json")) if one["severity"] == "error"
    ]


@pytest.mark.slow
def test_a_second_demo_in_the_same_folder_takes_fresh_names(demo: tuple[Path, dict[str, dict[str, object]]]) -> None:
    from stabmon.store import fresh_name

    folder, _ = demo
    assert fresh_name(folder, "naive") == "naive-2"


def test_every_command_has_a_first_line_of_help() -> None:
    assert all(command.callback and command.callback.__doc__ for command in cli.app.registered_commands)
