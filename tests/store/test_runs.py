import shutil
import sqlite3
from contextlib import closing
from importlib import import_module

import pytest

from stabmon.records import RunState, Severity
from stabmon.store import FILE, RunWriter, runs


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
    assert {run.state for run in listed} == {RunState.FINISHED}


def test_what_is_no_run_is_skipped_and_what_cannot_be_read_is_said(tmp_path, info, layout):
    RunWriter.create(tmp_path / "good", info, layout).close(RunState.FINISHED)
    (tmp_path / "empty").mkdir()
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
    assert (good.name, good.problem, good.state) == ("good", None, RunState.FINISHED)
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
