"""A wheel holds every module and every file of data that the repository has under stabmon/, and nothing else."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import stabmon

ROOT = Path(__file__).parent.parent
LINKED = ("kernels", "server", "configs")
"""Folders at the top of the repository that stabmon/ links to."""
NOT_SHIPPED = {"stabmon/server/page.png"}
"""The README's picture."""
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def tracked(*folders: str) -> list[str]:
    command = ["git", "ls-files", *folders]
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel that is built from a copy of what git tracks."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked("stabmon", *LINKED, "pyproject.toml", "README.md", "LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name, follow_symlinks=False)
    done = subprocess.run([sys.executable, "-c", BUILD, str(built)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = built.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_a_wheel_holds_every_tracked_file_of_the_package(wheel: set[str]) -> None:
    linked = {f"stabmon/{name}" for name in tracked(*LINKED)}
    expected = (set(tracked("stabmon")) - {f"stabmon/{folder}" for folder in LINKED}) | linked
    assert {name for name in wheel if name.startswith("stabmon/")} == expected - NOT_SHIPPED


def test_both_definitions_of_the_version_agree() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["version"] == stabmon.__version__
