"""One writer a run, in this process and across processes."""

import subprocess
import sys

import pytest

from stabmon.errors import StoreError
from stabmon.records import RunState
from stabmon.store import RunWriter
from stabmon.store.owner import Owner


def test_a_run_that_is_being_written_is_not_resumed(tmp_path, info, layout):
    writer = RunWriter.create(tmp_path / "lm", info, layout)
    with pytest.raises(StoreError, match=r"lm is being written by another monitor: close that one first"):
        RunWriter.create(tmp_path / "lm", info, layout, resume=True)
    writer.close(RunState.FINISHED)
    RunWriter.create(tmp_path / "lm", info, layout, resume=True).close(RunState.FINISHED)


def test_a_failed_start_releases_the_run(tmp_path, info, layout):
    RunWriter.create(tmp_path / "lm", info, layout).close(RunState.FINISHED)
    other = layout.of([("loss", None, 1)])
    with pytest.raises(StoreError, match="cannot resume"):
        RunWriter.create(tmp_path / "lm", info, other, resume=True)
    Owner(tmp_path / "lm").release()


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
