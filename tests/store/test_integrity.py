"""Every damaged or hostile run is refused with a reason, in bounded memory; a healthy one never is."""

import re
import subprocess
import sys

import numpy as np
import pytest

from stabmon.errors import StoreError
from stabmon.records import RunState
from stabmon.store import RunWriter, open_run, runs
from tests import damaged_runs


@pytest.mark.parametrize("name", damaged_runs.DAMAGED)
def test_a_damaged_run_is_refused_with_its_reason_and_hides_no_other(name, tmp_path):
    damaged_runs.make(tmp_path / "odd", name)
    damaged_runs.healthy(tmp_path / "good")
    with pytest.raises(StoreError, match=damaged_runs.SAYS):
        open_run(tmp_path / "odd")
    good, odd = runs(tmp_path)
    assert (good.name, good.problem) == ("good", None)
    assert re.search(damaged_runs.SAYS, odd.problem)


@pytest.mark.parametrize("samples", [0, 1, 127, 128, 129, 300])
def test_a_healthy_run_is_opened_while_it_is_written_resumed_and_finished(samples, tmp_path):
    folder, row = tmp_path / "lm", np.zeros(damaged_runs.LAYOUT.width, np.float32)
    writer = damaged_runs.healthy(folder, samples, close=False)
    for step in (samples, samples + 1, samples // 2):  # the last opens a second attempt
        writer.sample(step, 0.0, row)
        with open_run(folder) as run:
            info = run.info
    writer.close(RunState.FINISHED)
    writer = RunWriter.create(folder, info, damaged_runs.LAYOUT, resume=True)
    writer.sample(samples, 0.0, row)
    writer.close(RunState.FINISHED)
    assert runs(tmp_path)[0].problem is None


def test_damage_after_a_first_look_is_seen_by_the_next(tmp_path):
    damaged_runs.healthy(tmp_path / "lm")
    open_run(tmp_path / "lm").close()
    damaged_runs.DAMAGED["cut chunk"](tmp_path / "lm")
    with pytest.raises(StoreError, match="values of 'row_mass' are missing or of another length"):
        open_run(tmp_path / "lm")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [name for name in damaged_runs.DAMAGED if name != "empty file"])
def test_a_damaged_run_is_not_resumed(name, tmp_path):
    damaged_runs.make(tmp_path / "lm", name)
    with pytest.raises(StoreError, match=damaged_runs.SAYS):
        RunWriter.create(tmp_path / "lm", damaged_runs.INFO, damaged_runs.LAYOUT, resume=True)


def test_all_damaged_runs_together_are_listed_in_little_memory(tmp_path):
    for name in damaged_runs.DAMAGED:
        damaged_runs.make(tmp_path / name.replace(" ", "_"), name)
    code = """
import resource, sys
from stabmon.store import runs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
listed = runs(sys.argv[1])
assert all(run.problem for run in listed), [run.name for run in listed if not run.problem]
print(len(listed), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed, megabytes = map(int, done.stdout.split())
    assert listed == len(damaged_runs.DAMAGED)
    assert megabytes < 400
