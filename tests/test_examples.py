"""Each example runs as it is, and leaves a run with what its model and loop did."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import stabmon
from stabmon.records import RunState
from stabmon.series import is_missing
from stabmon.store import open_run

EXAMPLES = Path(__file__).parent.parent / "examples"
NEEDS = {"accelerate_loop": "accelerate", "lightning_trainer": "lightning", "transformers_trainer": "transformers"}
STEPS = 10

pytestmark = pytest.mark.filterwarnings(
    r"ignore:::(lightning|pytorch_lightning)\..*", "ignore:The dataloader, train_dataloader:UserWarning"
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return tmp_path


def only_run(folder):
    (path,) = (folder / "runs").iterdir()
    return open_run(path)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs_and_records_every_step_of_both_layers(path, folder):
    pytest.importorskip(NEEDS.get(path.stem, "torch"))
    runpy.run_path(str(path), run_name="__main__")
    with only_run(folder) as run:
        assert run.heartbeat().state is RunState.FINISHED
        norms, losses = run.read_layers("attention_norm"), run.read("loss")
    assert norms.steps.tolist() == list(range(STEPS))
    assert norms.values.shape == (STEPS, 2)
    assert not is_missing(norms.values).any()
    assert not is_missing(losses.values).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accelerate_loop", "several_processes", "transformers_trainer"])
def test_an_example_runs_in_two_processes_and_the_first_one_writes_the_run(name, folder, monkeypatch):
    pytest.importorskip("torch" if name == "several_processes" else "accelerate")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, str(EXAMPLES / f"{name}.py")], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with only_run(folder) as run:
        assert run.heartbeat().state is RunState.FINISHED
        norms = run.read_layers("attention_norm")
    assert norms.steps.tolist() == list(range(STEPS // 2 if name == "accelerate_loop" else STEPS))
    assert not is_missing(norms.values).any()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of torch.compile itself
def test_the_loop_in_torchtitans_form_records_compiled_blocks_too(folder):
    names = runpy.run_path(str(EXAMPLES / "torchtitan_loop.py"))
    trainer = names["Trainer"](names["JobConfig"](steps=2, compile=True, backend="eager"))
    trainer.train()
    with only_run(folder) as run:
        assert not is_missing(run.read_layers("attention_norm").values).any()
        assert run.info.config["compile"]


def test_the_notebook_shows_a_report_a_monitor_and_a_finding(folder):
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    names, shown = {}, []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            *body, last = cell["source"]
            exec("".join(body), names)
            shown.append(eval(last, names))
    report, monitor, finding = shown
    assert isinstance(report, stabmon.PreflightReport)
    assert isinstance(monitor, stabmon.Monitor)
    assert finding in monitor.findings
    assert all("<div" in one._repr_html_() for one in shown)


def test_every_example_is_on_the_page_of_frameworks():
    page = (EXAMPLES.parent / "docs" / "frameworks.md").read_text()
    assert [path.name for path in EXAMPLES.iterdir() if path.is_file() and path.name not in page] == []
