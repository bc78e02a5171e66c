import subprocess
import sys
from pathlib import Path

import pytest

from stabmon import config
from stabmon.errors import ConfigError

GOOD = """
name: small
model: {layers: 1, width: 8, heads: 2, context: 16, bias: 0}
training: {steps: 3, batch: 2, learning_rate: 1e-3}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def small(tmp_path: Path) -> config.RunConfig:
    return config.load(write(tmp_path, GOOD))


def test_a_file_is_read_with_its_types(small: config.RunConfig) -> None:
    assert small.training.learning_rate == 1e-3
    assert small.model.bias == 0.0
    assert small.model.layer_scale is None
    assert small.monitor.dense == 200


@pytest.mark.parametrize("name", config.documented())
def test_every_shipped_configuration_is_valid_and_carries_its_own_name(name: str) -> None:
    assert config.load(name).name == name


def test_every_shipped_configuration_says_what_it_shows() -> None:
    for path in config.documented().values():
        assert path.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "training.step",
            3,
            r"unknown key 'training.step'; did you mean 'training.steps'\? known here: training.steps",
        ),
        ("model.steps", 3, r"unknown key 'model.steps'; did you mean 'training.steps'\?"),
        ("modle.width", 8, r"unknown key 'modle'; did you mean 'model'\?"),
        ("zzz", 1, "unknown key 'zzz'; known here: name, workload"),
        ("model.layers", True, "model.layers must be a valid integer, got True of type bool .Number of blocks"),
        ("model.width", "8", "model.width must be a valid integer, got '8' of type str"),
        ("model.bias", "lenght", r"a valid number or 'length' or 'learnable', got 'lenght' .*did you mean 'length'\?"),
        ("model.position", "ropee", r"'learned', 'rope', 'alibi' or 'none', got 'ropee' .*did you mean 'rope'\?"),
        ("model.bias", float("inf"), "model.bias must be a finite number"),
        ("model.heads", 3, "model: width must be a multiple of heads, got width 8 and 3 heads"),
        ("model.width", 6, "width / heads must be even, got 3; change heads"),
        ("training.batch", 0, "training.batch must be greater than or equal to 1, got 0"),
        ("training", 3, "training must be a section with keys of its own, got 3"),
        ("name", "../up", r"name must be text that matches .*letters, digits"),
        ("name.x", 1, "'name' has no parts"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    small: config.RunConfig, key: str, value: object, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        config.override(small, {key: value})


def test_override_changes_the_named_values_alone(small: config.RunConfig) -> None:
    changed = config.override(small, {"training.steps": 10, "model.bias": "length"})
    assert (changed.training.steps, changed.model.bias) == (10, "length")
    assert changed.training.batch == small.training.batch
    assert small.training.steps == 3


def test_every_wrong_key_is_listed_with_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD.replace("layers: 1", "layer: 1") + "montor: {}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert [line.removeprefix(f"{file}: ").partition(";")[0] for line in lines] == [
        "model.layers is missing",
        "unknown key 'model.layer'",
        "unknown key 'montor'",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "got nothing"), ("- 1", "got list"), ("name: [", "not valid YAML"), ("a: b: c", "not valid YAML")],
)
def test_a_file_that_holds_no_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(write(tmp_path, text))


def test_the_error_for_a_missing_file_lists_the_shipped_names(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"configuration naivee: No such file or directory; did you mean 'naive'\? give"
    ):
        config.load("naivee")
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*gone.yaml.*naive"):
        config.load(tmp_path / "gone.yaml")


def test_a_configuration_survives_json(small: config.RunConfig) -> None:
    assert config.RunConfig.model_validate_json(small.model_dump_json()) == small


def test_reading_a_configuration_loads_no_torch() -> None:
    code = "import sys; from stabmon import config; config.load('naive'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
