import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from stabmon.errors import StoreError
from stabmon.records import RunState
from stabmon.store import FILE, RunWriter, open_run


def foreign(folder):
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()


def newer(folder):
    with sqlite3.connect(folder / FILE) as connection:
        connection.execute("CREATE TABLE stabmon (schema INTEGER)")
        connection.execute("INSERT INTO stabmon VALUES (7)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no run at .*: it has no run.sqlite; expected a folder that stabmon.watch wrote"),
        (foreign, "is not a stabmon run: it has no table 'stabmon'"),
        (lambda folder: (folder / FILE).write_bytes(b""), "is not a stabmon run: it has no table"),
        (lambda folder: (folder / FILE).write_text("hello " * 999), "is not a stabmon run: it is no SQLite file"),
        (newer, "run.sqlite was written by schema 7, this stabmon knows up to 4: upgrade stabmon"),
    ],
    ids=["missing", "foreign", "empty", "text", "newer"],
)
def test_what_cannot_be_read_is_an_error_that_names_the_reason(make, message, tmp_path):
    make(tmp_path)
    for path in (tmp_path, tmp_path / FILE):
        with pytest.raises(StoreError, match=message):
            open_run(path)


def test_a_folder_of_runs_names_the_runs_in_it(info, layout, tmp_path):
    for name in ("naive", "fixed"):
        RunWriter.create(tmp_path / name, info, layout).close(RunState.FINISHED)
    with pytest.raises(StoreError, match=r"give one of the runs in it: .*/fixed, .*/naive$"):
        open_run(tmp_path)


def test_a_wrong_path_names_the_run_that_may_have_been_meant(info, layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunWriter.create(tmp_path / "runs" / "naive", info, layout).close(RunState.FINISHED)
    for given in ("naive", "runs/nave", "nowhere/naive"):
        with pytest.raises(StoreError, match=f"no run at {given}: there is no such folder; did you mean runs/naive"):
            open_run(given)
    with pytest.raises(StoreError, match="there is no such folder; expected a folder"):
        open_run("elsewhere/quite-different")


def test_a_folder_that_disappears_is_an_error_that_names_the_reason(write, odd_rows, tmp_path):
    write(odd_rows(3))
    with open_run(tmp_path / "lm") as run:
        shutil.rmtree(tmp_path / "lm")
        for ask in (run.heartbeat, run.findings, lambda: run.read("loss"), lambda: run.after(0), lambda: run.sizes):
            with pytest.raises(StoreError, match=r"is gone .*: it was deleted or moved while"):
                ask()


def test_a_damaged_file_is_an_error_that_names_the_reason(write, odd_rows, tmp_path):
    write(odd_rows(300)).close(RunState.FINISHED)
    file = tmp_path / "lm" / FILE
    data = bytearray(file.read_bytes())
    data[8192 * 3 :] = os.urandom(len(data) - 8192 * 3)
    file.write_bytes(data)

    def use():
        with open_run(file) as run:
            run.read("loss")
            run.after(0)

    with pytest.raises(StoreError, match=r"run\.sqlite"):
        use()


WRITER = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
import numpy as np
from stabmon.records import ModelMap, RunInfo
from stabmon.series import Layout
from stabmon.store import RunWriter

info = RunInfo(name="lm", created=datetime.now(UTC), model=ModelMap(attentions=(), parameters=0))
writer = RunWriter.create(Path(sys.argv[1]), info, Layout.of([("loss", None, 1), ("row_mass", "layers.0", 40)]))
for step in range(int(sys.argv[2])):
    writer.sample(step, float(step), np.full(41, step, dtype=np.float32))
os._exit(0)
"""


def start_writer(folder, steps):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), str(folder), str(steps)])


def test_another_process_is_read_while_it_writes(tmp_path, wait_until):
    steps, seen, cursor = 1500, [], 0
    process = start_writer(tmp_path, steps)
    wait_until(lambda: (tmp_path / FILE).exists())
    run = None
    while len(seen) < steps:
        try:
            run = run or open_run(tmp_path)
        except StoreError:  # the file is there, its tables are not yet
            continue
        new = run.after(cursor)
        cursor = new.cursor
        assert (new.rows == new.steps[:, None]).all()
        seen += new.steps.tolist()
        whole = run.read("row_mass", max_points=7)
        assert len(whole.steps) <= 7
        assert whole.high is None or whole.high.max() == run.read("loss", start=whole.cursor - 1).values[0, 0]
    assert process.wait() == 0
    run.close()
    assert seen == list(range(steps))


def test_a_crashed_writer_leaves_a_run_that_can_be_read(tmp_path):
    assert start_writer(tmp_path, 200).wait() == 0
    assert (tmp_path / f"{FILE}-wal").stat().st_size > 0
    with open_run(tmp_path) as run:
        assert run.read("loss").values[:, 0].tolist() == list(range(200))


@pytest.fixture
def read_only_folder():
    """A folder, and a way to take the right to write from it and, for root, from us."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)

    @contextlib.contextmanager
    def locked():
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
        us = os.geteuid()
        if us == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(us)
            folder.chmod(0o755)

    yield folder, locked
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX users")
def test_a_finished_run_is_one_file_and_can_be_read_where_nothing_can_be_written(
    read_only_folder, info, layout, odd_rows
):
    folder, locked = read_only_folder
    writer = RunWriter.create(folder, info, layout)
    for step in range(3):
        writer.sample(step, 0.0, odd_rows(1)[0])
    writer.close(RunState.FINISHED)
    assert [file.name for file in folder.iterdir()] == [FILE]
    with locked(), open_run(folder) as run:
        assert run.read("loss").steps.tolist() == [0, 1, 2]
        assert run.after(0).cursor == 3


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX users")
def test_a_crashed_run_where_nothing_can_be_written_is_read_or_refused_with_the_reason(read_only_folder):
    folder, locked = read_only_folder
    assert start_writer(folder, 50).wait() == 0
    (folder / f"{FILE}-shm").unlink()
    with locked(), pytest.raises(StoreError, match="copy the folder to where you can write"):
        open_run(folder)


def test_many_runs_are_opened_without_leaving_files_open(write, odd_rows, tmp_path):
    write(odd_rows(3)).close(RunState.FINISHED)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(20):
        with open_run(tmp_path / "lm") as run:
            run.heartbeat()
    assert before == 0 or len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_path_with_odd_letters_is_opened(info, layout, tmp_path):
    folder = tmp_path / "a b%20#?ü"
    RunWriter.create(folder, info, layout).close(RunState.FINISHED)
    with open_run(folder) as run:
        assert run.info == info
        assert run.layout == layout
