import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stabmon.errors import ConfigError
from stabmon.workloads import text


def files(folder: Path, **contents: str) -> None:
    for name, content in contents.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def test_files_are_read_in_the_order_of_their_relative_paths(tmp_path: Path) -> None:
    files(tmp_path, b="2", a__z="1", c="3")
    (tmp_path / "notes.txt").write_text("no")
    assert text.read(tmp_path) == b"123"


def test_tests_and_installed_packages_are_left_out(tmp_path: Path) -> None:
    leave = {"test__a": "x", "pkg__tests__b": "x", "test_d": "1"}
    files(tmp_path, **leave)
    (tmp_path / "site-packages").mkdir()
    files(tmp_path / "site-packages", e="x")
    assert text.read(tmp_path) == b"1"


def test_no_more_than_the_limit_is_read(tmp_path: Path) -> None:
    files(tmp_path, a="12345", b="67890")
    assert text.read(tmp_path, limit=7) == b"1234567"


def test_a_python_without_source_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.py files in .*ships its source"):
        text.read(tmp_path)


def test_validation_is_the_unseen_end() -> None:
    train, valid = text.split(bytes(range(100)))
    assert train.dtype == torch.uint8
    assert (train.tolist(), valid.tolist()) == (list(range(90)), list(range(90, 100)))


@pytest.mark.slow
def test_the_standard_library_is_real_text_and_the_same_in_another_process() -> None:
    here = text.standard_library().train
    assert len(here) > 2**20
    assert b"import os" in bytes(here[: 2**20].tolist())
    code = "from stabmon.workloads.text import standard_library as s; print(s().train.long().sum().item())"
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(there.stdout) == here.long().sum().item()
