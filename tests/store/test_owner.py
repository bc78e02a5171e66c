"""One writer a run, in this process and across processes."""

import os
import socket
import subprocess
import sys

import pytest

from stabmon.errors import StoreError
from stabmon.records import RunState
from stabmon.store import FILE, RunWriter, open_run
from stabmon.store.owner import LOCK, Owner, holder


def test_a_run_that_is_being_written_is_not_resumed(tmp_path, info, layout):
    writer = RunWriter.create(tmp_path / "lm", info, layout)
    with pytest.raises(
        StoreError,
        match=rf"lm is being written by another monitor \(process {os.getpid()} on .*\): close that one first",
    ):
        RunWriter.create(tmp_path / "lm", info, layout, resume=True)
    writer.close(RunState.FINISHED)
    RunWriter.create(tmp_path / "lm", info, layout, resume=True).close(RunState.FINISHED)


def test_a_failed_start_releases_the_run(tmp_path, info, layout):
    RunWriter.create(tmp_path / "lm", info, layout).close(RunState.FINISHED)
    other = layout.of([("loss", None, 1)])
    with pytest.raises(StoreError, match="cannot resume"):
        RunWriter.create(tmp_path / "lm", info, other, resume=True)
    Owner(tmp_path / "lm").release()


def test_the_lock_file_is_gone_with_a_run_that_was_closed(tmp_path, info, layout):
    RunWriter.create(tmp_path / "lm", info, layout).close(RunState.FINISHED)
    assert [file.name for file in (tmp_path / "lm").iterdir()] == [FILE]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_holds_no_lock(tmp_path):
    reading, writing = os.pipe()
    owner = Owner(tmp_path)
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)  # until the test is over
        os._exit(0)
    owner._descriptor, descriptor = None, owner._descriptor
    os.close(descriptor)  # as the death of the process does: LOCK_UN is not called
    Owner(tmp_path).release()
    os.close(writing)
    os.waitpid(child, 0)


def test_the_owner_of_a_run_can_be_read_without_disturbing_the_next_writer(tmp_path):
    assert holder(tmp_path) is None
    owner = Owner(tmp_path)
    assert holder(tmp_path) == f"process {os.getpid()} on {socket.gethostname()}"
    owner.release()
    assert holder(tmp_path) == ""
    Owner(tmp_path).release(ended=True)
    assert holder(tmp_path) is None


def test_a_lock_of_another_machine_is_no_evidence_of_a_crash(tmp_path):
    (tmp_path / LOCK).write_text("12 elsewhere\n")
    assert holder(tmp_path) is None


@pytest.mark.parametrize("kind", ["killed", "left"])
def test_a_run_whose_process_ended_without_closing_it_has_crashed(kind, tmp_path):
    end = "os.kill(os.getpid(), signal.SIGTERM)" if kind == "killed" else "os._exit(0)"
    script = f"""
import os, signal
from datetime import UTC, datetime
from pathlib import Path
from stabmon.records import ModelMap, RunInfo
from stabmon.series import Layout
from stabmon.store import RunWriter
info = RunInfo(name="lm", created=datetime.now(UTC), model=ModelMap(attentions=(), parameters=0))
writer = RunWriter.create(Path({str(tmp_path)!r}), info, Layout.of([("loss", None, 1)]))
{end}
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    with open_run(tmp_path) as run:
        assert run.heartbeat().state is RunState.CRASHED
        info, layout = run.info, run.layout
    writer = RunWriter.create(tmp_path, info, layout, resume=True)
    with open_run(tmp_path) as run:
        assert run.heartbeat().state is RunState.STARTING
        writer.close(RunState.FINISHED)
        assert run.heartbeat().state is RunState.FINISHED


def test_a_process_that_was_killed_holds_nothing(tmp_path):
    hold = "import sys, time; from pathlib import Path; from stabmon.store.owner import Owner\n"
    hold += f"owner = Owner(Path({str(tmp_path)!r})); print('held', flush=True); time.sleep(3600)"
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match="being written"):
            Owner(tmp_path)
        process.kill()
        process.wait()
    Owner(tmp_path).release()
