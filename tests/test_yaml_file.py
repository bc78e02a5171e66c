import os
import threading
from pathlib import Path

import pytest

from stabmon import config, yaml_file
from stabmon.errors import ConfigError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 20000 values"),
        ("a: &a [*a]", "an alias inside of what it stands for"),
        ("[" * 3000, "nested more than 20 deep"),
        ("a: " + "{a: " * 3000, "nested more than 20 deep"),
        ("- " * 3000 + "x", "nested more than 20 deep"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands here twice"),
        ("a: {b: 1, b: 2}", "the key 'b' stands here twice"),
        ("? [a]\n: 1", "unhashable"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: 2020-99-99", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: [", "not valid YAML"),
        ("a\x00b", "not valid YAML"),
        ("# " + "x" * 2**20, "more than 1048576 bytes"),
    ],
    ids=[
        *("billion laughs", "alias of itself", "lists", "mappings", "blocks", "twice", "twice within", "list as key"),
        *("huge number", "no date", "python object", "not closed", "NUL", "long"),
    ],
)
def test_files_that_expand_too_much_or_repeat_a_key_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        yaml_file.read(tmp_path / "odd.yaml", "the configuration")


def test_aliases_merges_and_exponents_without_a_dot_are_read(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("base: &base {rate: 1e-3, steps: 3}\nother: {<<: *base, steps: 4}")
    found = yaml_file.read(tmp_path / "good.yaml", "the configuration")
    assert found["other"] == {"rate": 1e-3, "steps": 4}


def test_what_is_no_text_file_is_refused_and_a_pipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    for path in (tmp_path, tmp_path / "bytes.yaml", tmp_path / "none.yaml", "/dev/zero", "x" * 5000):
        with pytest.raises(ConfigError, match="cannot read the configuration"):
            config.load(path)
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("a: 1",)).start()
    assert yaml_file.read(tmp_path / "pipe", "the configuration") == {"a": 1}
