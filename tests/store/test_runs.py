import os
import shutil
import sqlite3
import tempfile
import threading
from concurrent import futures
from contextlib import closing, contextmanager
from datetime import datetime
from importlib import import_module
from pathlib import Path

import pytest

from stabmon.errors import StoreError
from stabmon.records import RunState, Severity
from stabmon.store import FILE, RunWriter, fresh_name, runs
from stabmon.store.owner import Owner
from stabmon.store.run_folder import RunFolder


def test_runs_are_listed_newest_first_with_their_findings(tmp_path, info, layout, make_finding):
    for name, day in (("a", 2), ("b", 3), ("layers.10", 1), ("layers.2", 1)):
        created = info.created.replace(day=day)
        writer = RunWriter.create(tmp_path / name, info.model_copy(update={"name": name, "created": created}), layout)
        if name == "b":
            writer.findings([make_finding(), make_finding(opened=4), make_finding(severity=Severity.INFO, opened=5)])
        writer.close(RunState.FINISHED)
    listed = runs(tmp_path)
    assert [run.name for run in listed] == ["b", "a", "layers.2", "layers.10"]
    assert listed[0].findings == {Severity.ERROR: 2, Severity.INFO: 1}
    assert {run.beat.state for run in listed} == {RunState.FINISHED}


def test_what_is_no_run_is_skipped_and_what_cannot_be_read_is_reported(tmp_path, info, layout):
    RunWriter.create(tmp_path / "good", info, layout).close(RunState.FINISHED)
    (tmp_path / "empty").mkdir()
    os.utime(tmp_path / "empty", (1e9, 1e9))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / FILE).write_text("no database at all, and long enough to be looked at " * 40)
    listed = runs(tmp_path)
    assert [run.name for run in listed] == ["good", "foreign"]
    assert listed[0].problem is None
    assert "is not a stabmon run" in listed[1].problem


@pytest.mark.parametrize(
    ("table", "column", "problem"),
    [
        ("run", "info", "RunInfo.created"),
        ("run", "layout", "Layout.columns"),
        ("heartbeat", "state", "Heartbeat.state"),
    ],
)
def test_a_run_whose_description_is_damaged_does_not_hide_the_others(table, column, problem, tmp_path, info, layout):
    for name in ("good", "odd"):
        RunWriter.create(tmp_path / name, info, layout).close(RunState.FINISHED)
    with closing(sqlite3.connect(tmp_path / "odd" / FILE)) as connection, connection:
        value = "gone" if table == "heartbeat" else '{"name": "lm"}'
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
    good, odd = runs(tmp_path)
    assert (good.name, good.problem, good.beat.state) == ("good", None, RunState.FINISHED)
    assert f"is damaged ({problem}" in odd.problem


def test_a_directory_that_is_missing_or_empty_has_no_runs(tmp_path):
    assert runs(tmp_path) == []
    assert runs(tmp_path / "nowhere") == []


def test_a_folder_that_is_being_deleted_is_skipped(tmp_path, info, layout, monkeypatch):
    RunWriter.create(tmp_path / "lm", info, layout).close(RunState.FINISHED)
    module = import_module("stabmon.store.runs")
    opened = module.open_run

    def deleted_meanwhile(folder):
        run = opened(folder)
        shutil.rmtree(folder)
        return run

    monkeypatch.setattr(module, "open_run", deleted_meanwhile)
    assert runs(tmp_path) == []


@pytest.fixture
def as_nobody():
    """Make a folder that every user may list, and a way to be a user without rights in it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    @contextmanager
    def nobody():
        us = os.geteuid()
        if us == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(us)

    yield folder, nobody
    for closed in (folder, *folder.iterdir()):
        closed.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_without_permission_hides_no_run_and_is_named(as_nobody, info, layout):
    folder, nobody = as_nobody
    RunWriter.create(folder / "lm", info, layout).close(RunState.FINISHED)
    (folder / "lost+found").mkdir(mode=0o700)
    (folder / "lost+found").chmod(0)
    with nobody():
        good, closed = runs(folder)
    assert (good.name, good.problem) == ("lm", None)
    assert (closed.name, closed.problem) == ("lost+found", f"cannot look into {closed.path}: Permission denied")
    folder.chmod(0)
    with nobody(), pytest.raises(StoreError, match=r"cannot list the runs in .*: Permission denied"):
        runs(folder)


def test_a_run_of_the_year_one_hides_no_other(tmp_path, info, layout):
    for name, created in (("good", info.created), ("odd", datetime(1, 1, 1))):
        RunWriter.create(tmp_path / name, info.model_copy(update={"created": created}), layout).close(RunState.FINISHED)
    assert [run.name for run in runs(tmp_path)] == ["good", "odd"]


def test_processes_that_start_at_once_get_names_of_their_own(tmp_path):
    go = threading.Event()
    with futures.ThreadPoolExecutor(8) as pool:
        children = [pool.submit(lambda: (go.wait(), fresh_name(tmp_path / "runs", "lm"))[1]) for _ in range(8)]
        go.set()
    assert sorted(child.result() for child in children) == ["lm", *(f"lm-{number}" for number in range(2, 9))]


def test_a_run_name_below_a_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"creating the run failed: .*file is a file and not a folder"):
        fresh_name(tmp_path / "file", "lm")


def test_a_run_that_has_stored_nothing_yet_is_starting_and_not_damaged(tmp_path, info, layout):
    (tmp_path / "reserved").mkdir()
    (tmp_path / "locked").mkdir()
    owner = Owner(tmp_path / "locked")
    (tmp_path / "no-table").mkdir()
    other = Owner(tmp_path / "no-table")
    (tmp_path / "no-table" / FILE).touch()
    writer = RunWriter.create(tmp_path / "no-step", info, layout)
    found = {run.name: run for run in runs(tmp_path)}
    assert [found[name].problem for name in ("reserved", "locked", "no-table", "no-step")] == [None] * 4
    assert {run.beat.state for run in found.values()} == {RunState.STARTING}
    assert {run.health.level for run in found.values()} == {"info"}
    owner.release()
    other.release()
    writer.close(RunState.FINISHED)
    found = {run.name: run for run in runs(tmp_path)}
    assert found["locked"].beat.state is RunState.CRASHED
    assert "not a stabmon run" in found["no-table"].problem


def test_a_run_whose_folder_is_not_utf8_hides_no_other_and_says_what_to_do(tmp_path, info, layout):
    for name in ("good", "odd"):
        RunWriter.create(tmp_path / name, info, layout).close(RunState.FINISHED)
    os.rename(tmp_path / "odd", os.fsencode(tmp_path) + b"/caf\xe9")
    good, odd = runs(tmp_path)
    assert (good.name, good.problem) == ("good", None)
    assert "not UTF-8: rename it" in odd.problem
    assert odd.model_dump_json()


@pytest.mark.parametrize("name", ["²", "3²", "①", "layers.²"])
def test_digits_that_are_no_decimals_can_be_in_a_name(name, tmp_path, info, layout):
    RunWriter.create(tmp_path / name, info, layout).close(RunState.FINISHED)
    RunWriter.create(tmp_path / "other", info, layout).close(RunState.FINISHED)
    assert {run.name for run in runs(tmp_path)} == {name, "other"}


def test_deleting_a_run_leaves_what_else_is_in_its_folder(tmp_path, info, layout):
    for name in ("alone", "with-checkpoint"):
        RunWriter.create(tmp_path / name, info, layout).close(RunState.FINISHED)
        (tmp_path / name / "events.out.tfevents.1.host.2.0").touch()
    (tmp_path / "with-checkpoint" / "model.pt").write_bytes(b"weights")
    (tmp_path / "with-checkpoint" / "run.sqlite.copy").touch()
    store = RunFolder(tmp_path)
    for name in ("alone", "with-checkpoint"):
        store.delete(name)
        assert not store.has(name)
    assert [path.name for path in tmp_path.iterdir()] == ["with-checkpoint"]
    assert sorted(os.listdir(tmp_path / "with-checkpoint")) == ["model.pt", "run.sqlite.copy"]
