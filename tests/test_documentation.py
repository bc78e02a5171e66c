"""README and configurations hold what they say: commands, table, snippets and tree are checked against the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stabmon import config, rules
from stabmon.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_two_commands_stand_in_the_readme_as_written() -> None:
    assert "pip install -c configs/constraints.txt -e . && stabmon demo" in README
    assert "pip install -c configs/constraints.txt -e '.[test]' && pytest" in README


def test_the_table_of_rules_is_the_code_s_own() -> None:
    assert rules.markdown_table().strip() in README


@pytest.mark.parametrize("snippet", _blocks("python"), ids=lambda text: text.strip().splitlines()[0])
def test_every_python_snippet_of_the_readme_runs(snippet: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_table_of_the_evaluation_is_that_of_the_stored_result() -> None:
    from stabmon.evaluation import report

    stored = report.read(ROOT / "configs" / "evaluation.json")
    assert report.markdown(stored.of("held-out")).strip() in README


def test_every_command_of_the_command_line_is_in_the_readme_and_the_other_way_round() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    named = set(re.findall(r"^\| `stabmon (\w+)", README, flags=re.MULTILINE))
    assert named == commands


def test_the_file_tree_names_files_that_exist() -> None:
    tree = _blocks("text")[-1]
    assert len(set(tree.splitlines())) == len(tree.splitlines())
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0] if line.strip() else ""
        if not line.startswith(" "):
            folder = name
            assert not name or (ROOT / name).exists(), name
        elif name:
            assert (ROOT / folder / name).exists(), f"{folder}{name}"


@pytest.mark.parametrize("path", config.documented().values(), ids=lambda path: path.stem)
def test_every_configuration_that_ships_can_be_read_and_says_what_it_shows(path: Path) -> None:
    assert config.load(path).name == path.stem
    assert path.read_text().startswith("# ")


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
