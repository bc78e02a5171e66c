"""A rule is added by one file: its own text reaches the command line, the API, the page's digest and a report."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from stabmon import preflight, watch
from stabmon.cli import app
from stabmon.nn import Block, SigmoidAttention
from stabmon.rules import registry

SECTIONS = "\n    ".join(f"{section}: words about the toy." for section in registry.SECTIONS)
TOY = f'''
from stabmon.records import Evidence, Severity
from stabmon.rules import Explanation, Observation, rule


@rule("USR900", "toy-row-mass", severity=Severity.ERROR, evidence=Evidence.MEASURED)
def toy_row_mass(run, limits):
    """Flag rows of any mass.

    {SECTIONS}
    """
    for hit in run.series("row_mass").above(1e-9):
        yield Observation(hit, lambda: Explanation("the toy sees rows", "toys look at rows"))
'''


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    path = tmp_path / "toy.py"
    path.write_text(TOY)
    return path


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(Block(16, SigmoidAttention(16, 2, max_length=8)) for _ in range(3)))


def printed(*arguments: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def test_a_rule_from_a_file_is_listed_and_explained(toy: Path) -> None:
    assert "USR900" in printed("rules", "--rules", toy)
    assert "words about the toy." in printed("rules", "USR900", "--rules", toy)
    assert "USR900" not in printed("rules")


def test_a_rule_from_a_file_is_in_the_preflight_report(toy: Path, model: nn.Module) -> None:
    text = " ".join(str(preflight(model, torch.randn(2, 8, 16), rules=toy)).split())
    assert "USR900 toy-row-mass, 0 to 2:" in text
    assert "the toy sees rows (in 0). Cause: toys look at rows." in text


def test_a_rule_from_a_file_is_in_the_run_the_command_line_and_the_api(
    toy: Path, model: nn.Module, tmp_path: Path, open_client: Callable
) -> None:
    with watch(model, dir=tmp_path / "runs", name="lm", rules=[toy], console=False) as monitor:
        model(torch.randn(2, 8, 16)).sum().backward()
        monitor.step()
    table = printed("findings", tmp_path / "runs" / "lm", code=1)
    assert "Unhealthy since step 0: toy row mass in 0 to 2." in table
    client = open_client(tmp_path / "runs")
    (entry,) = client.get("/api/v1/runs/lm/digest").json()["entries"]
    assert (entry["code"], entry["title"], entry["where"]) == ("USR900", "toy row mass", "0 to 2")
    assert {one["code"] for one in client.get("/api/v1/runs/lm/findings").json()} == {"USR900"}


def test_a_decorated_rule_is_in_the_catalogue_of_the_command_line_and_the_api(toy: Path) -> None:
    script = """if True:
        import json, toy
        from fastapi.testclient import TestClient
        from typer.testing import CliRunner
        from stabmon.cli import app
        from stabmon.server.app import create_app
        listed = json.loads(CliRunner().invoke(app, ["rules", "--json"]).stdout)
        served = TestClient(create_app("."), base_url="http://127.0.0.1").get("/api/v1/rules").json()
        print(json.dumps([[one for one in rules if one["code"] == "USR900"] for rules in (listed, served)]))
    """
    path = os.pathsep.join([str(toy.parent), *sys.path])
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    (listed,), (served,) = json.loads(done.stdout)
    assert listed == served
    assert (listed["name"], listed["checks"], listed["group"]) == ("toy-row-mass", "words about the toy.", "user")
