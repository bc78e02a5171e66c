import contextlib
import logging
import math
import shutil
import subprocess
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from sqlalchemy import Engine, event

from stabmon.errors import StoreError
from stabmon.recorder import Recorder
from stabmon.records import Heartbeat, ModelMap, RunInfo, RunState
from stabmon.series import Layout
from stabmon.sinks import StoreSink, TensorBoardSink
from stabmon.store import RunWriter, open_run

PATIENCE = 300
"""Seconds for the recorder's thread, which a loaded machine may not run at once."""
WIDTH = 2000
LAYOUT = Layout.of([("loss", None, 1), ("row_mass", "layers.0", WIDTH - 1)])
INFO = RunInfo(name="run", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=0))


def row(step):
    return np.full(WIDTH, step, dtype=np.float32)


def started(folder, pause=0.0, **options):
    sink = StoreSink(folder, pause=pause, **options)
    sink.start(INFO, LAYOUT)
    return sink


@pytest.fixture
def fill():
    """Let the store that a test opens first grow by at most so many pages, or without a limit by 0."""
    opened = []

    def keep(connection, record):
        opened.append(connection)

    def limit(pages):
        (used,) = opened[0].execute("PRAGMA page_count").fetchone()
        opened[0].execute(f"PRAGMA max_page_count = {used + pages if pages else 2**31 - 2}")

    event.listen(Engine, "connect", keep)
    yield limit
    event.remove(Engine, "connect", keep)


def take(sink, steps):
    failures = []
    for step in steps:
        try:
            sink.sample(step, float(step), row(step))
        except StoreError as error:
            failures.append(str(error))
    return failures


def stored(folder):
    with open_run(folder) as run:
        values = run.read("row_mass").values
        assert (values == values[:, :1]).all()
        return values[:, 0].tolist()


def test_rows_wait_while_the_store_is_full_and_are_written_in_order_later(tmp_path, fill):
    sink = started(tmp_path)
    fill(20)
    failures = take(sink, range(300))
    assert failures
    assert all("the disk is full" in failure for failure in failures)
    assert sink.waiting == len(failures)
    assert f"{len(failures)} samples wait in memory" in sink.advice
    fill(0)
    assert take(sink, [300]) == []
    assert sink.waiting == 0
    sink.close(RunState.FINISHED)
    assert stored(tmp_path) == list(range(301))


def test_rows_that_wait_are_written_at_close(tmp_path, fill):
    sink = started(tmp_path)
    fill(5)
    assert take(sink, range(50))
    fill(0)
    sink.close(RunState.FINISHED)
    assert stored(tmp_path) == list(range(50))


def test_close_says_how_many_rows_are_lost_when_the_store_stays_full(tmp_path, fill):
    sink = started(tmp_path)
    fill(5)
    failures = take(sink, range(50))
    with pytest.raises(StoreError, match=f"the disk is full.*; {len(failures)} of 50 samples of the run are lost"):
        sink.close(RunState.FINISHED)
    assert stored(tmp_path) == list(range(50 - len(failures)))


def test_losses_at_the_end_are_reported_even_after_an_earlier_report(tmp_path, caplog, fill):
    sink = StoreSink(tmp_path)
    recorder = Recorder(WIDTH, lambda raw: raw, INFO, LAYOUT, [sink], beat=60.0)
    assert recorder.flush(PATIENCE)
    fill(1)
    for step in range(30):
        recorder.submit(step, torch.zeros(WIDTH))
    recorder.close()
    assert len(caplog.messages) == 2
    assert "wait in memory" in caplog.messages[0]
    assert "samples of the run are lost" in caplog.messages[1]


def test_more_rows_than_may_wait_are_counted(tmp_path, fill):
    sink = started(tmp_path, kept=10)
    fill(1)
    failures = take(sink, range(40))
    assert sink.waiting == 10
    assert sink.lost == len(failures) - 10
    fill(0)
    sink.heartbeat(Heartbeat(state=RunState.RUNNING, step=39, time=0.0, dropped=2))
    with open_run(tmp_path) as run:
        assert run.heartbeat().dropped == sink.lost + 2
    assert stored(tmp_path)[-10:] == list(range(30, 40))
    with pytest.raises(StoreError, match=f"too many waited; {sink.lost} of 40 samples of the run are lost"):
        sink.close(RunState.FINISHED)
    with open_run(tmp_path) as run:
        assert run.heartbeat().words == f"finished, {sink.lost + 2} of {40 + 2} samples lost"


def test_a_failing_store_is_not_retried_before_its_pause_is_over(tmp_path, monkeypatch):
    sink, asked = started(tmp_path, pause=math.inf), []

    def locked(*arguments):
        asked.append(arguments)
        raise StoreError("database is locked")

    monkeypatch.setattr(RunWriter, "sample", locked)
    with pytest.raises(StoreError):
        sink.sample(0, 0.0, row(0))
    for step in range(1, 5):
        sink.sample(step, 0.0, row(step))
    assert len(asked) == 1
    monkeypatch.undo()
    sink.close(RunState.FINISHED)
    assert stored(tmp_path) == [0, 1, 2, 3, 4]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def occupy(ballast):
    """Write ``ballast`` until the disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_a_disk_that_is_full_for_a_while_loses_nothing_and_is_reported_once(small_disk, caplog):
    folder = small_disk / "run"
    recorder = Recorder(WIDTH, lambda raw: raw, INFO, LAYOUT, [StoreSink(folder), TensorBoardSink(folder)])
    buffer = torch.zeros(WIDTH)

    def train(steps):
        for step in steps:
            buffer.fill_(step)
            recorder.submit(step, buffer)
        assert recorder.flush(PATIENCE)

    with caplog.at_level(logging.WARNING, logger="stabmon"):
        train(range(50))
        ballast = small_disk / "ballast"
        occupy(ballast)
        train(range(50, 120))
        ballast.unlink()
        train(range(120, 121))
        recorder.close()
    assert recorder.dropped == 0
    assert stored(folder) == list(range(121))
    said = [message for message in caplog.messages if message.startswith("stabmon: store:")]
    assert len(said) == 1
    assert "the disk is full" in said[0]
    assert "wait in memory" in said[0]
