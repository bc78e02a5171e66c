"""The list of all runs: read once, again where a file changed, and in parts where there are many."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from stabmon.records import RunState
from stabmon.server import fleet
from stabmon.server.fleet import Fleet, RunList
from stabmon.store import run_folder
from stabmon.store.run_folder import RunFolder

WRITE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.server.conftest import Store
store = Store(Path(sys.argv[1]))
writer = store.start("killed")
store.write(writer, range(5))
print("written", flush=True)
time.sleep(3600)
"""


def listed(made: Fleet) -> RunList:
    found = json.loads(made.json())
    for run in found["runs"]:
        if run["beat"]:
            del run["beat"]["words"]  # computed
    return RunList.model_validate(found)


def test_a_run_is_listed_with_progress_curves_and_the_settings_in_which_runs_differ(runs):
    runs.finished("naive", naive=True)
    runs.finished("fixed")
    found = listed(Fleet(RunFolder(runs.directory)))
    fixed, naive = found.runs
    assert found.columns == ("model.bias",)
    assert (naive.config, fixed.config) == ({"model.bias": "0"}, {"model.bias": "-5.545"})
    assert (naive.beat.step, naive.planned) == (299, 300)
    assert naive.loss[0] > naive.loss[-1] > 2
    assert len(naive.loss) <= fleet.POINTS
    assert naive.mass[-1] == pytest.approx(55, abs=10)
    assert fixed.mass[-1] == pytest.approx(0.9, abs=0.1)
    assert naive.health.title == "Unhealthy since step 0"
    assert naive.process.state is RunState.FINISHED


def test_a_gap_in_a_curve_is_none_and_no_number(runs):
    writer = runs.start("gaps")
    runs.write(writer, range(190, 215), naive=True)
    (run,) = listed(Fleet(RunFolder(runs.directory))).runs
    assert [value is None for value in run.mass] == [190 + at in range(200, 206) for at in range(25)]


def test_a_run_that_has_not_changed_is_not_read_again_and_one_that_has_is(runs, monkeypatch):
    read = []
    once = run_folder.summary
    monkeypatch.setattr(run_folder, "summary", lambda folder, *more: read.append(folder.name) or once(folder, *more))
    for name in ("a", "b"):
        runs.finished(name)
    made = Fleet(RunFolder(runs.directory))
    first = made.json()
    assert made.json() is first
    assert sorted(read) == ["a", "b"]
    shutil.rmtree(runs.directory / "a")
    runs.finished("c")
    runs.finished("a", naive=True)
    assert {run.name: run.findings.get("error") for run in listed(made).runs} == {"a": 5, "b": None, "c": None}
    assert sorted(read) == ["a", "a", "b", "c"]
    shutil.rmtree(runs.directory / "b")
    assert {run.name for run in listed(made).runs} == {"a", "c"}


def test_what_cannot_be_read_in_time_is_named_and_read_for_a_later_request(runs, monkeypatch, wait_until):
    for index in range(12):
        runs.finished(f"run-{index}")
    monkeypatch.setattr(fleet, "NEW", 0.0)
    made = Fleet(RunFolder(runs.directory))
    first = listed(made).runs
    assert len(first) == 12
    assert all(run.pending and run.beat is None for run in first)
    wait_until(lambda: not any(run.pending for run in listed(made).runs))
    assert all(run.beat.state is RunState.FINISHED for run in listed(made).runs)


def test_a_run_whose_process_is_killed_is_crashed_in_the_next_list(runs):
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    command = [sys.executable, "-W", "ignore", "-c", WRITE, str(runs.directory), root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        made = Fleet(RunFolder(runs.directory))
        (run,) = listed(made).runs
        assert (run.process.state, run.health.title) == (RunState.RUNNING, "Healthy")
        process.send_signal(signal.SIGKILL)
        process.wait()
        (run,) = listed(made).runs
    assert (run.process.state, run.process.level) == (RunState.CRASHED, "error")


@pytest.mark.slow
def test_hundreds_of_runs_are_listed_and_not_read_twice(runs, wait_until, open_client):
    runs.finished("run-0")
    for index in range(1, 300):
        shutil.copytree(runs.directory / "run-0", runs.directory / f"run-{index}")
    client = open_client(runs.directory)
    wait_until(lambda: not any(run["pending"] for run in client.get("/api/v1/runs").json()["runs"]))
    response = client.get("/api/v1/runs")
    assert len(response.json()["runs"]) == 300
    tag = response.headers["etag"]
    assert client.get("/api/v1/runs", headers={"If-None-Match": tag}).status_code == 304
