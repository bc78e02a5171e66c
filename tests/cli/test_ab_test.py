"""``stabmon try``, as a user runs it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from stabmon import config as configuration
from stabmon.cli import app
from stabmon.errors import FixError


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    changes = {"model.layers": 1, "model.width": 16, "model.heads": 2, "model.context": 64, "training.batch": 2}
    config = configuration.override(configuration.load("naive"), changes)
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(file)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["try", *arguments, "--device", "cpu"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_fix_that_preflight_names_is_tried(tiny: str) -> None:
    said = " ".join(run(tiny, "--steps", "3", "--seeds", "2").split())
    assert "On trial in layers.0.attention: bias = -" in said
    assert "95 % interval" in said
    assert "+ bias: -" in said


def test_one_kind_can_be_named_and_the_report_is_one_json_object(tiny: str) -> None:
    report = json.loads(run(tiny, "--fix", "learning_rate", "--value", "0.1", "--steps", "2", "--seeds", "1", "--json"))
    assert report["fixes"][0]["value"] == 0.1
    assert report["verdict"] == "unclear"
    assert len(report["without"]["losses"][0]) == 2


def test_a_healthy_run_asks_for_the_kind_to_try() -> None:
    with pytest.raises(FixError, match=r"name what to try: --fix bias \|"):
        run("fixed", "--steps", "2", "--seeds", "1")


def test_a_run_races_its_softmax_twin_and_the_recipes(tiny: str) -> None:
    arguments = ("--against", "softmax", "--recipes", "--steps", "2", "--seeds", "2", "--json")
    report = json.loads(run(tiny, *arguments))
    assert len(report["softmax"]) == len(report["sigmoid"]) == 2
    recipes = ["QK norm", "hybrid norm", "LayerScale", "learnable bias", "ALiBi"]
    assert [one["name"] for one in report["recipes"]] == recipes
    assert "softmax twin" in run(tiny, "--against", "softmax", "--steps", "2", "--seeds", "2")


def test_a_race_takes_no_fix(tiny: str) -> None:
    with pytest.raises(FixError, match="leave --fix"):
        run(tiny, "--against", "softmax", "--fix", "bias")
    with pytest.raises(FixError, match="--against softmax"):
        run(tiny, "--recipes")
