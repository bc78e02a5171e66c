"""A new fix kind needs one file: the command line, the API, the page, reports and configurations find it there."""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from torch import nn
from typer.testing import CliRunner

import stabmon.fixes
from stabmon import config as configuration
from stabmon.cli import app
from stabmon.errors import FixError
from stabmon.evaluation.causes import settings
from stabmon.findings import Finding, digest
from stabmon.fixes import apply_to_config, config_diff, registry
from stabmon.fixes.record import Fix
from stabmon.preflight_check.report import PreflightReport
from stabmon.records import Attention, Evidence, ModelMap, RunInfo, RunState, Severity
from stabmon.rules.expected_effects import with_effects
from stabmon.rules.view import Run
from stabmon.series import Layout
from stabmon.server.app import create_app
from stabmon.store import RunWriter, open_run
from tests.fixes.toy_kind import ToyDecay

MODEL = ModelMap(attentions=(), parameters=1)


@pytest.fixture
def toy() -> Iterator[type[ToyDecay]]:
    """The toy kind in the registry, for one test."""
    yield registry.register(ToyDecay)
    if registry.is_registered("toy_decay"):
        registry.unregister("toy_decay")


def finding(fix: Fix) -> Finding:
    return Finding(
        code="UPD001",
        name="toy",
        severity=Severity.WARNING,
        evidence=Evidence.MEASURED,
        layer=None,
        head=None,
        metric="loss",
        value=2.0,
        limit=1.0,
        message="the weights grow",
        cause="nothing holds them",
        opened=0,
        peak=0,
        last=0,
        fixes=(fix,),
    )


def stored(folder: Path, fix: Fix) -> Path:
    info = RunInfo(name="run", created=datetime.now(UTC), model=MODEL)
    writer = RunWriter.create(folder / "run", info, Layout.of([("loss", None, 1)]))
    writer.findings([finding(fix)])
    writer.close(RunState.FINISHED)
    return folder / "run"


@pytest.mark.usefixtures("toy")
def test_the_api_and_a_report_carry_the_title_of_a_new_kind(tmp_path: Path) -> None:
    fix = stabmon.fixes.toy_decay_fix(0.25, "the weights grow")
    stored(tmp_path, fix)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
        from fastapi.testclient import TestClient
    client = TestClient(create_app(tmp_path), base_url="http://127.0.0.1")
    (found,) = client.get("/api/v1/runs/run/findings").json()
    (carried,) = found["fixes"]
    assert (carried["kind"], carried["title"], carried["value"]) == ("toy_decay", "toy weight decay", 0.25)
    assert carried["code"].endswith('group["weight_decay"] = 0.25')
    (entry,) = digest([finding(fix)]).entries
    assert entry.advice == "toy weight decay = 0.25: the weights grow."
    assert PreflightReport(rows=(), findings=(finding(fix),), map=MODEL).fixes == (fix,)


@pytest.mark.usefixtures("toy")
def test_the_rules_give_a_new_kind_its_expected_effect() -> None:
    run = Run(RunInfo(name="run", created=datetime.now(UTC), model=MODEL), Layout.of([("loss", None, 1)]))
    run.add(0, np.array([4.0], np.float32))
    (fix,) = with_effects([stabmon.fixes.toy_decay_fix(0.25, "why")], run)
    assert str(fix.effect) == "loss 4 -> 1"


@pytest.mark.usefixtures("toy")
def test_a_new_kind_changes_a_configuration() -> None:
    before = configuration.load("naive")
    after = apply_to_config(stabmon.fixes.toy_decay_fix(0.25, "why"), before)
    assert "+  weight_decay: 0.25" in config_diff(before, after)
    assert settings()["training.weight_decay"] == "toy_decay"


@pytest.mark.usefixtures("toy")
def test_a_new_kind_can_be_tried_from_the_command_line(tmp_path: Path) -> None:
    changes = {"model.layers": 1, "model.width": 16, "model.heads": 2, "model.context": 64, "training.batch": 2}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(configuration.override(configuration.load("naive"), changes).model_dump()))
    chosen = ["--fix", "toy_decay", "--steps", "2", "--seeds", "1", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, ["try", str(file), *chosen])
    report = json.loads(done.stdout)
    assert [(fix["title"], fix["value"]) for fix in report["fixes"]] == [("toy weight decay", 0.5)]
    assert "+  weight_decay: 0.5" in report["diff"]


@pytest.mark.usefixtures("toy")
def test_the_error_for_an_unknown_kind_lists_all_kinds() -> None:
    done = CliRunner().invoke(app, ["try", "naive", "--fix", "toy_decya"])
    assert isinstance(done.exception, FixError)
    assert "did you mean 'toy_decay'?" in str(done.exception)
    assert str(done.exception).endswith(", toy_decay")


def test_the_help_of_try_lists_the_kinds() -> None:
    said = " ".join(CliRunner().invoke(app, ["try", "--help"], env={"COLUMNS": "300"}).stdout.split())
    assert ", ".join(registry.names()) in said


@pytest.mark.usefixtures("toy")
def test_an_unregistered_kind_is_unknown() -> None:
    registry.unregister("toy_decay")
    with pytest.raises(FixError, match="unknown fix kind 'toy_decay'"):
        registry.find("toy_decay")
    with pytest.raises(AttributeError):
        stabmon.fixes.toy_decay_fix(0.25, "why")


def test_a_kind_is_registered_only_once(toy: type[ToyDecay]) -> None:
    with pytest.raises(ValueError, match=r"'toy_decay' is there already, from tests\.fixes\.toy_kind"):
        registry.register(toy)


@pytest.mark.usefixtures("toy")
def test_a_fix_of_an_unknown_kind_is_not_made_but_a_stored_one_is_read(tmp_path: Path) -> None:
    fix = stabmon.fixes.toy_decay_fix(0.25, "why")
    run = stored(tmp_path, fix)
    registry.unregister("toy_decay")
    with pytest.raises(ValidationError, match=r"unknown fix kind 'toy_decay'; .*expected one of bias"):
        Fix(kind="toy_decay", module="", safety=fix.safety, why="why", code="x")
    with open_run(run) as reader:
        (read,) = reader.findings()
    assert read.fix == fix
    assert str(read.fix) == "toy weight decay = 0.25"
    with pytest.raises(FixError, match="unknown fix kind"):
        read.fix.apply(nn.Identity())


def test_every_file_of_the_folder_is_a_kind_and_loads_no_torch() -> None:
    files = {path.stem for path in Path(stabmon.fixes.__file__).parent.joinpath("kinds").glob("[!_]*.py")}
    assert files == set(registry.names())
    code = "import sys, stabmon.fixes.kinds; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_constructor_of_a_kind_is_found_in_the_package() -> None:
    assert {f"{name}_fix" for name in registry.names()} <= set(dir(stabmon.fixes))
    attention = Attention(layer="", module="", block="", branch="", kind="sigmoid", heads=1, head_dim=1)
    assert stabmon.fixes.bias_fix(attention, -2.0, "why").kind == "bias"
    with pytest.raises(AttributeError, match="no attribute 'bais_fix'"):
        stabmon.fixes.bais_fix  # noqa: B018
