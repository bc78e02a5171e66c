"""What a wheel must hold beside the modules is named in pyproject.toml."""

import subprocess
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import stabmon

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
LINKED = ("kernels", "server", "configs")
NOT_SHIPPED = {"server/page.png"}
"""The README's picture."""


def test_every_file_of_data_is_shipped_by_name() -> None:
    globs = SETTINGS["tool"]["setuptools"]["package-data"]["stabmon"]
    listed = subprocess.run(
        ["git", "ls-files", "stabmon", *LINKED], check=True, cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    data = [name.removeprefix("stabmon/") for name in listed if not name.endswith(".py")]
    left = [name for name in data if not any(fnmatchcase(name, glob) for glob in globs)]
    assert set(left) - set(LINKED) == NOT_SHIPPED
    assert [glob for glob in globs if not any(fnmatchcase(name, glob) for name in data)] == []


def test_the_version_stands_in_two_places_and_is_one() -> None:
    assert SETTINGS["project"]["version"] == stabmon.__version__
