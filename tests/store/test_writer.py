import contextlib
import json
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from stabmon.errors import StoreError
from stabmon.records import RunState
from stabmon.series import Layout, Logged
from stabmon.store import FILE, RunWriter, open_run, schema


def rows_of(layout, values):
    return np.repeat(np.array(values, dtype=np.float32)[:, None], layout.width, axis=1)


def losses(folder, **which):
    with open_run(folder) as run:
        read = run.read("loss", **which)
        return dict(zip(read.steps.tolist(), read.values[:, 0].tolist(), strict=True))


def test_a_run_is_not_written_over(write, odd_rows, tmp_path, info, layout):
    write(odd_rows(1)).close(RunState.FINISHED)
    with pytest.raises(StoreError, match=r"the run 'lm' exists already at .*resume=True"):
        RunWriter.create(tmp_path / "lm", info, layout)


def test_a_resumed_run_goes_on(write, odd_rows, tmp_path, info, layout):
    write(rows_of(layout, range(130))).close(RunState.FAILED)
    writer = RunWriter.create(tmp_path / "lm", info, layout, resume=True)
    with open_run(tmp_path / "lm") as run:
        assert run.heartbeat().state is RunState.RUNNING
    write(rows_of(layout, range(130, 300)), 130, writer)
    writer.close(RunState.FINISHED)
    assert losses(tmp_path / "lm") == {step: step for step in range(300)}
    with open_run(tmp_path / "lm") as run:
        assert run.sizes.attempts == 1


def test_a_run_of_an_older_schema_becomes_one_of_this_schema_where_it_goes_on(
    write, odd_rows, make_finding, tmp_path, info, layout
):
    writer = write(odd_rows(3))
    writer.findings([make_finding()])
    writer.close(RunState.FINISHED)
    newer = {"confidence", "follows", "lead"}
    with contextlib.closing(sqlite3.connect(tmp_path / "lm" / FILE)) as connection, connection:
        (text,) = connection.execute("SELECT document FROM finding").fetchone()
        old = {key: value for key, value in json.loads(text).items() if key not in newer}
        connection.execute("UPDATE finding SET document = ?", (json.dumps(old),))
        connection.execute("UPDATE stabmon SET schema = 1")
        connection.executescript("DROP TABLE logged; DROP TABLE failure")
    with open_run(tmp_path / "lm") as run:
        assert run.findings()[0].follows is None
        assert len(run.read("loss").steps) > 0
        assert run.after(0).logged == run.failures() == ()
    writer = RunWriter.create(tmp_path / "lm", info, layout, resume=True)
    writer.logged([Logged(5, 1005.0, "loss", 0.5)])
    writer.close(RunState.FINISHED)
    with open_run(tmp_path / "lm") as run:
        assert run.read("loss", start=5).values.tolist() == [[0.5]]
    with contextlib.closing(sqlite3.connect(tmp_path / "lm" / FILE)) as connection:
        assert connection.execute("SELECT schema FROM stabmon").fetchone() == (schema.SCHEMA,)


def test_a_run_is_resumed_only_with_the_same_layout(write, odd_rows, tmp_path, info, layout):
    write(odd_rows(1)).close(RunState.FAILED)
    other = Layout.of([(c.metric, c.layer, 8 if c.layer == "layers.2" else c.size) for c in layout.columns])
    message = r"it was recorded with 3 columns for row_mass of layers.2, this model has 8; give another name"
    with pytest.raises(StoreError, match=message):
        RunWriter.create(tmp_path / "lm", info, other, resume=True)
    turned = Layout.of([(c.metric, c.layer, c.size) for c in reversed(layout.columns)])
    with pytest.raises(StoreError, match="its columns in another order"):
        RunWriter.create(tmp_path / "lm", info, turned, resume=True)


def test_resuming_a_run_that_does_not_exist_starts_it(tmp_path, info, layout):
    RunWriter.create(tmp_path / "new", info, layout, resume=True).close(RunState.FINISHED)
    with open_run(tmp_path / "new") as run:
        assert run.info == info


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("back_to", [0, 50, 127, 128, 129, 299])
def test_a_step_that_goes_back_opens_an_attempt_that_goes_on_from_the_earlier_one(
    back_to, reopened, write, tmp_path, info, layout
):
    writer = write(rows_of(layout, range(300)))
    if reopened:
        writer.close(RunState.FAILED)
        writer = RunWriter.create(tmp_path / "lm", info, layout, resume=True)
    again = range(1000 + back_to, 1300)
    write(rows_of(layout, again), back_to, writer)
    first = {step: step for step in range(300)}
    assert losses(tmp_path / "lm") == first | {step: step + 1000 for step in range(back_to, 300)}
    assert losses(tmp_path / "lm", attempt=1) == first
    assert losses(tmp_path / "lm", start=back_to - 5, stop=back_to + 5) == {
        step: step + 1000 * (step >= back_to) for step in range(max(back_to - 5, 0), min(back_to + 5, 300))
    }
    with open_run(tmp_path / "lm") as run:
        zoomed = run.read("loss", max_points=2)
        assert (zoomed.low.min(), zoomed.high.max()) == (0 if back_to else 1000, 1299)
        assert run.sizes[:2] == (600 - back_to, 2)
    writer.close(RunState.FINISHED)


def test_attempts_within_attempts_are_stitched(write, tmp_path, layout):
    writer = write(rows_of(layout, [0, 1, 2, 3, 4]))
    write(rows_of(layout, [13, 14, 15]), 3, writer)
    write(rows_of(layout, [21]), 1, writer)
    assert losses(tmp_path / "lm") == {0: 0, 1: 21}
    assert losses(tmp_path / "lm", attempt=2) == {0: 0, 1: 1, 2: 2, 3: 13, 4: 14, 5: 15}


def test_the_tail_never_holds_more_than_a_fold(write, odd_rows, tmp_path):
    write(odd_rows(300))
    with sqlite3.connect(tmp_path / "lm" / FILE) as connection:
        assert connection.execute(f"SELECT count(*) FROM {schema.tail.name}").fetchone() == (300 % 128,)
    connection.close()


@pytest.mark.parametrize("row", [np.zeros(3, np.float32), np.zeros(11, np.float64)], ids=["width", "dtype"])
def test_a_row_of_another_shape_is_refused(row, write, odd_rows):
    with pytest.raises(StoreError, match=r"a row must be float32 of shape \[11\], got"):
        write(odd_rows(1)).sample(5, 0.0, row)


def test_the_caller_may_overwrite_its_row(write, tmp_path, layout):
    writer, row = write([]), np.zeros(layout.width, np.float32)
    for step in range(128):
        row.fill(step)
        writer.sample(step, 0.0, row)
    assert losses(tmp_path / "lm") == {step: step for step in range(128)}


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_reason(tmp_path, info, layout):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="creating the run"):
        RunWriter.create(tmp_path / "file" / "lm", info, layout)


def test_what_became_of_the_file_is_seen(write, odd_rows, tmp_path):
    folder, writer = tmp_path / "lm", write(odd_rows(1))
    assert writer.what_happened() is None
    folder.rename(tmp_path / "moved")
    assert writer.what_happened() == (
        f"{folder / FILE} was moved while the run was written to {tmp_path}/moved/{FILE}",
        True,
        True,
    )
    (tmp_path / "moved").rename(folder)
    assert writer.what_happened() is None
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_text("hello " * 9999)
    assert writer.what_happened() == (f"{folder / FILE} was overwritten while the run was written", False, False)
    (folder / FILE).write_bytes(content)
    (folder / FILE).unlink()
    assert writer.what_happened() == (f"{folder / FILE} was deleted while the run was written", False, True)
    (folder / FILE).write_text("")
    assert writer.what_happened().text.endswith("and another file is at its place")


def test_the_file_is_recognised_without_giving_up_the_locks_on_it(write, odd_rows, tmp_path):
    """Closing a descriptor of a file gives up a process's locks on it: another process would delete the log."""
    writer = write(odd_rows(1))
    writer.what_happened()
    script = f"import sqlite3; sqlite3.connect({str(tmp_path / 'lm' / FILE)!r}).execute('SELECT * FROM run').fetchall()"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "lm" / f"{FILE}-wal").stat().st_size > 0
    write(odd_rows(3), 1, writer).close(RunState.FINISHED)
    assert len(losses(tmp_path / "lm")) == 4


def test_no_number_of_a_series_is_a_column_of_its_own():
    blobs = {(table, column.name) for table in schema.metadata.tables.values() for column in table.columns}
    kinds = {
        column.type.__class__.__name__ for table, name in blobs for column in [table.columns[name]] if name == "data"
    }
    assert kinds == {"LargeBinary"}


def test_the_tables_can_be_made_in_postgresql():
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    for table in schema.metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))
