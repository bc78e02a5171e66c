import os
import signal
import subprocess
import sys

import pytest

from stabmon.records import RunState
from stabmon.server.fleet import Fleet
from stabmon.server.notices import Observer
from stabmon.store.run_folder import RunFolder


class Watched:
    """A folder and what an observer of it reports."""

    def __init__(self, runs, monkeypatch) -> None:
        monkeypatch.setattr("stabmon.server.fleet.EVERY", 0.0)
        self.fleet, self.observer = Fleet(RunFolder(runs.directory)), Observer()

    def new(self):
        """Return what is new, once all runs have been read."""
        while any(run.pending for run in self.fleet.now()):
            pass
        return self.observer.look(self.fleet.now())


@pytest.fixture
def watched(runs, monkeypatch):
    return Watched(runs, monkeypatch)


def test_what_is_there_when_the_server_starts_is_not_reported(runs, watched):
    runs.finished("naive", naive=True)
    assert watched.new() == []
    assert watched.new() == []


def test_a_run_that_could_not_be_read_at_the_first_look_is_not_reported_later(runs, watched, monkeypatch):
    runs.finished("naive", naive=True)
    with monkeypatch.context() as slow:
        slow.setattr("stabmon.server.fleet.NEW", -1.0)
        slow.setattr("stabmon.server.fleet.Fleet._read_on", lambda fleet: None)
        assert watched.observer.look(watched.fleet.now()) == []
        watched.fleet._reader = None
    assert watched.new() == []


def test_findings_of_one_rule_are_one_notice_with_what_to_do(runs, watched, make_findings):
    writer = runs.start("naive", naive=True)
    runs.write(writer, range(3), naive=True)
    assert watched.new() == []
    writer.findings(make_findings()[:4])
    (notice,) = watched.new()
    assert (notice.kind, notice.run, notice.code, notice.severity, notice.step) == (
        "opened",
        "naive",
        "ATT001",
        "error",
        0,
    )
    assert notice.layers == ("layers.0", "layers.1", "layers.2", "layers.3")
    assert notice.keys[0] == "ATT001:layers.0:0"
    assert notice.text.startswith(
        "naive: error ATT001 large-initial-attention-norm opened in layers.0 to layers.3 at step 0: The attention norm"
    )
    assert notice.fix in notice.text
    assert watched.new() == []


def test_a_finding_that_clears_and_opens_again_is_reported_each_time(runs, watched, make_findings):
    writer = runs.start("naive", naive=True)
    runs.write(writer, range(3), naive=True)
    watched.new()
    one = make_findings()[0]
    writer.findings([one])
    assert [notice.kind for notice in watched.new()] == ["opened"]
    writer.findings([one.model_copy(update={"cleared": 200})])
    assert [(notice.kind, notice.step) for notice in watched.new()] == [("cleared", 200)]
    writer.findings([one.model_copy(update={"times": 2, "reopened": 250})])
    assert [(notice.kind, notice.step) for notice in watched.new()] == [("opened", 250)]
    writer.findings([one.model_copy(update={"times": 3, "reopened": 260, "cleared": 262})])
    assert [(notice.kind, notice.step) for notice in watched.new()] == [("opened", 260), ("cleared", 262)]


def test_a_failed_run_is_reported_once_and_a_finished_one_not(runs, watched):
    writers = [runs.start(name) for name in ("bad", "good")]
    for writer in writers:
        runs.write(writer, range(3))
    watched.new()
    writers[0].close(RunState.FAILED)
    writers[1].close(RunState.FINISHED)
    assert [(notice.kind, notice.run, notice.step) for notice in watched.new()] == [("failed", "bad", 2)]
    assert watched.new() == []


def test_a_run_whose_process_was_killed_is_reported_as_crashed(runs, watched):
    assert watched.new() == []
    code = (
        "import sys, time; from tests.server.conftest import Store; from pathlib import Path;"
        "store = Store(Path(sys.argv[1])); writer = store.start('killed'); store.write(writer, range(3));"
        "print('up', flush=True); time.sleep(99)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(runs.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=os.getcwd()) as process:
        process.stdout.readline()
        assert watched.new() == []
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [notice.kind for notice in watched.new()] == ["crashed"]


def test_a_run_that_replaces_another_of_its_name_is_new(runs, watched, make_findings):
    runs.finished("naive", naive=True)
    watched.new()
    os.rename(runs.directory / "naive", runs.directory.parent / "old")
    runs.finished("naive", naive=True)
    assert {notice.code for notice in watched.new()} == {"ATT001", "GRD001", "NUM001"}
