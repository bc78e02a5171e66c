import itertools
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from stabmon.errors import StoreError
from stabmon.records import Heartbeat, RunState
from stabmon.series import MISSING_BITS, Spot, is_missing, over_heads
from stabmon.store import FILE, RunWriter, open_run

ROW_MASS = [4, 5, 6, 0, 1, 2]
"""Columns of row_mass in the layout, layers.2 before layers.10."""


def bits(values):
    return np.ascontiguousarray(values).view(np.uint32)


@pytest.mark.parametrize("steps", [0, 1, 127, 128, 129, 256, 300])
def test_every_bit_comes_back_through_tail_and_folds(steps, write, odd_rows, tmp_path, layout):
    rows = odd_rows(steps)
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read("row_mass")
        assert (bits(read.values) == bits(rows[:, ROW_MASS])).all()
        assert read.values.shape == (steps, 6)
        assert read.steps.tolist() == list(range(steps))
        assert read.times.tolist() == [1000.0 + step for step in range(steps)]
        assert (read.low, read.high, read.cursor) == (None, None, steps)
        new = run.after(0)
        assert (bits(new.rows) == bits(rows)).all()
        assert new.rows.shape == (steps, layout.width)


def test_spots_name_layers_in_natural_order_and_heads_where_there_are_some(write, odd_rows, tmp_path):
    write(odd_rows(2))
    with open_run(tmp_path / "lm") as run:
        of_layer = [Spot("layers.2", head) for head in range(3)]
        assert run.read("row_mass").spots == of_layer + [Spot("layers.10", head) for head in range(3)]
        assert run.read("row_mass", layer="layers.2").spots == of_layer
        assert run.read("branch_ratio").spots == [Spot("layers.2", None), Spot("layers.10", None)]
        assert run.read("loss").spots == [Spot(None, None)]


@pytest.mark.parametrize("layer", ["layers.2", "layers.10"])
@pytest.mark.parametrize("max_points", [None, 3], ids=["raw", "levels"])
def test_one_layer_is_that_part_of_all_layers(layer, max_points, write, odd_rows, tmp_path):
    write(odd_rows(300))
    with open_run(tmp_path / "lm") as run:
        whole, part = (
            run.read("row_mass", max_points=max_points),
            run.read("row_mass", layer=layer, max_points=max_points),
        )
    own = [spot.layer == layer for spot in whole.spots]
    assert (bits(part.values) == bits(whole.values[:, own])).all()


@pytest.mark.parametrize(("start", "stop"), [(None, 10), (5, None), (100, 140), (128, 256), (299, 300), (400, None)])
def test_a_range_of_steps_has_its_start_and_not_its_stop(start, stop, write, odd_rows, tmp_path):
    rows = odd_rows(300)
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read("loss", start=start, stop=stop)
    assert read.steps.tolist() == list(range(300))[start:stop]
    assert (bits(read.values) == bits(rows[start:stop, 3:4])).all()


def plain_buckets(values, size):
    """The slow twin: low, mean and high of each bucket and column, one at a time."""
    low, mean, high = [], [], []
    for start in range(0, len(values), size):
        for column in values[start : start + size].T:
            with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
                measured = column[~is_missing(column)].astype(np.float64)
            numbers = measured[~np.isnan(measured)]
            gap = np.uint32(MISSING_BITS).view(np.float32)
            low.append(gap if not len(measured) else numbers.min() if len(numbers) else np.nan)
            high.append(gap if not len(measured) else numbers.max() if len(numbers) else np.nan)
            with np.errstate(invalid="ignore"):
                mean.append(gap if not len(measured) else measured.mean())
    return [np.array(plane, np.float32).reshape(-1, values.shape[1]) for plane in (low, mean, high)]


@pytest.mark.parametrize("max_points", [1, 2, 5, 9, 60, 150, 599])
def test_downsampled_values_are_those_of_a_slow_twin(max_points, write, odd_rows, tmp_path):
    rows = odd_rows(600)
    rows[100:400, 4] = np.uint32(MISSING_BITS).view(np.float32)
    rows[:, [0, 5]] = np.abs(np.nan_to_num(rows[:, [0, 5]], posinf=3.0, neginf=1.0))
    write(rows)
    size = math.ceil(600 / max_points)
    unit = max(unit for unit in (1, 32, 128) if unit <= size)
    with open_run(tmp_path / "lm") as run:
        read = run.read("row_mass", max_points=max_points)
    assert len(read.steps) <= max_points
    if unit == 1:
        low, mean, high = plain_buckets(rows[:, ROW_MASS], size)
        assert read.steps.tolist() == list(range(0, 600, size))
    else:
        edges = [*read.steps, 600]
        parts = [plain_buckets(rows[start:stop, ROW_MASS], 600) for start, stop in itertools.pairwise(edges)]
        low, mean, high = (np.concatenate(planes) for planes in zip(*parts, strict=True))
    np.testing.assert_array_equal(bits(read.low), bits(low))
    np.testing.assert_array_equal(bits(read.high), bits(high))
    np.testing.assert_allclose(read.values, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(is_missing(read.values), is_missing(mean))


def test_a_spike_and_a_nan_of_one_step_are_seen_from_afar(write, layout, tmp_path):
    rows = np.ones((1000, layout.width), np.float32)
    rows[517, 3], rows[800, 3] = 1e6, np.nan
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read("loss", max_points=4)
    assert len(read.steps) == 4
    assert read.high[:, 0].max() == 1e6
    assert np.isnan(read.values).sum() == 1
    assert not np.isnan(read.low).any()


@pytest.mark.parametrize("max_points", [None, 100, 4], ids=["raw", "buckets", "levels"])
def test_one_column_a_layer_is_made_as_the_glossary_says(max_points, write, layout, tmp_path):
    rows = np.abs(np.random.default_rng(1).standard_normal((300, layout.width))).astype(np.float32)
    write(rows)
    with open_run(tmp_path / "lm") as run:
        read = run.read_layers("logit_max", max_points=max_points)
        assert run.read_layers("row_mass", max_points=max_points).values.shape == (len(read.steps), 2)
    truth = over_heads("logit_max", rows[:, 7:9])
    assert read.spots == [Spot("layers.2", None)]
    if max_points is None:
        np.testing.assert_array_equal(read.values[:, 0], truth)
        return
    edges = [*read.steps, 300]
    for row, (start, stop) in enumerate(itertools.pairwise(edges)):
        assert read.high[row, 0] >= truth[start:stop].max()
        assert read.low[row, 0] <= truth[start:stop].min()


def test_live_reading_goes_on_where_it_was(write, odd_rows, tmp_path):
    rows = odd_rows(400)
    writer = write(rows[:100])
    with open_run(tmp_path / "lm") as run:
        first = run.after(0)
        assert len(run.after(first.cursor).steps) == 0
        write(rows[100:], 100, writer)
        limited = run.after(first.cursor, limit=50)
        rest = run.after(limited.cursor)
        assert [limited.cursor, rest.cursor] == [150, 400]
        assert limited.steps.tolist() + rest.steps.tolist() == list(range(100, 400))
        assert (bits(np.concatenate([limited.rows, rest.rows])) == bits(rows[100:])).all()
        assert run.read("loss").cursor == 400


def test_findings_and_their_latest_form_come_back(write, odd_rows, make_finding, tmp_path):
    writer = write(odd_rows(1))
    one, two = make_finding(), make_finding(layer="layers.2", opened=1)
    writer.findings([one, two])
    writer.findings([one.model_copy(update={"cleared": 9})])
    with open_run(tmp_path / "lm") as run:
        found = run.findings()
    assert [finding.key for finding in found] == [two.key, one.key]
    assert [finding.cleared for finding in found] == [None, 9]
    assert math.isnan(found[0].value)
    assert found[0].limit == math.inf


def test_a_silent_run_is_stale_and_a_finished_one_is_not(write, odd_rows, tmp_path, monkeypatch):
    writer = write(odd_rows(4))
    beat = Heartbeat(state=RunState.RUNNING, step=3, time=time.time(), dropped=2, overhead=0.01, interval=5.0)
    writer.heartbeat(beat)
    with open_run(tmp_path / "lm") as run:
        assert run.heartbeat() == beat.model_copy(update={"samples": 4})
        monkeypatch.setattr(time, "time", lambda: beat.time + 14.9)
        assert run.heartbeat().state is RunState.RUNNING
        monkeypatch.setattr(time, "time", lambda: beat.time + 15.1)
        assert run.heartbeat().state is RunState.STALE
        writer.close(RunState.FINISHED)
        assert run.heartbeat().state is RunState.FINISHED


def test_a_metric_or_layer_that_is_not_there_is_answered_with_what_is(write, odd_rows, tmp_path):
    write(odd_rows(1))
    with open_run(tmp_path / "lm") as run:
        with pytest.raises(StoreError, match="no metric 'rowmass'; it records row_mass, logit_max, branch_ratio, loss"):
            run.read("rowmass")
        with pytest.raises(StoreError, match=r"no row_mass of layer 'layers.3'; it has layers.2, layers.10"):
            run.read("row_mass", layer="layers.3")


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
        (newer, "run.sqlite was written by schema 7, this stabmon knows up to 1: upgrade stabmon"),
    ],
    ids=["missing", "foreign", "empty", "text", "newer"],
)
def test_what_cannot_be_read_is_said_plainly(make, message, tmp_path):
    make(tmp_path)
    for path in (tmp_path, tmp_path / FILE):
        with pytest.raises(StoreError, match=message):
            open_run(path)


def test_a_folder_that_disappears_is_said_plainly(write, odd_rows, tmp_path):
    write(odd_rows(3))
    with open_run(tmp_path / "lm") as run:
        shutil.rmtree(tmp_path / "lm")
        for ask in (run.heartbeat, run.findings, lambda: run.read("loss"), lambda: run.after(0), lambda: run.sizes):
            with pytest.raises(StoreError, match=r"is gone .*: the folder was deleted or moved"):
                ask()


def test_a_damaged_file_is_said_plainly(write, odd_rows, tmp_path):
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


def test_another_process_is_read_while_it_writes(tmp_path):
    steps, seen, cursor = 1500, [], 0
    process = start_writer(tmp_path, steps)
    deadline = time.monotonic() + 60
    while not (tmp_path / FILE).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    run = None
    while len(seen) < steps and time.monotonic() < deadline:
        try:
            run = run or open_run(tmp_path)
        except StoreError:  # the file is there, its tables are not yet
            continue
        cursor, new, rows = run.after(cursor)
        assert (rows == new[:, None]).all()
        seen += new.tolist()
        whole = run.read("row_mass", max_points=7)
        assert len(whole.steps) <= 7
        assert whole.high is None or whole.high.max() == run.read("loss", start=whole.cursor - 1).values[0, 0]
    assert process.wait(30) == 0
    run.close()
    assert seen == list(range(steps))


def test_a_crashed_writer_leaves_a_run_that_can_be_read(tmp_path):
    assert start_writer(tmp_path, 200).wait(60) == 0
    assert (tmp_path / f"{FILE}-wal").stat().st_size > 0
    with open_run(tmp_path) as run:
        assert run.read("loss").values[:, 0].tolist() == list(range(200))


def test_a_finished_run_is_one_file_and_can_be_read_where_nothing_can_be_written(write, odd_rows, tmp_path):
    rows = odd_rows(140)
    write(rows).close(RunState.FINISHED)
    folder = tmp_path / "lm"
    assert [file.name for file in folder.iterdir()] == [FILE]
    folder.chmod(0o500)
    (folder / FILE).chmod(0o400)
    try:
        with open_run(folder) as run:
            assert (bits(run.read("loss").values) == bits(rows[:, 3:4])).all()
    finally:
        folder.chmod(0o700)


def test_sizes_count_samples_attempts_and_bytes(write, odd_rows, tmp_path):
    writer = write(odd_rows(130))
    write(odd_rows(5), 10, writer)
    with open_run(tmp_path / "lm") as run:
        assert run.sizes[:3] == (135, 2, 11)
        assert run.sizes.bytes > 130 * 11 * 4


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
