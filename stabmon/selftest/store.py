"""The store: what is written comes back bit for bit, a killed writer loses nothing that it said, damage is refused."""

import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from stabmon.errors import StoreError
from stabmon.records import ModelMap, RunInfo, RunState
from stabmon.selftest.check import FailedError, require
from stabmon.series import MISSING, Layout
from stabmon.store import FILE, RunWriter, open_run

LAYOUT = Layout.of([("loss", None, 1), ("row_mass", "layers.0", 7)])
KILLED_AT = 300
"""Samples after which the writer is killed, two folds and a tail."""


def start(folder: Path) -> RunWriter:
    """Start a run at ``folder``."""
    info = RunInfo(name=folder.name, created=datetime.now(UTC), model=ModelMap(attentions=(), parameters=0))
    return RunWriter.create(folder, info, LAYOUT)


def written() -> str:
    """Write rows with every odd number, and read them back."""
    noise = np.random.default_rng(0)
    rows = noise.standard_normal((300, LAYOUT.width)).astype(np.float32)
    rows[noise.random(rows.shape) < 0.2] = np.nan
    rows[::7, 0], rows[::11, 1], rows[::13, 2] = np.inf, -0.0, MISSING
    with tempfile.TemporaryDirectory() as folder:
        writer = start(Path(folder) / "run")
        for step, row in enumerate(rows):
            writer.sample(step, float(step), row)
        writer.close(RunState.FINISHED)
        with open_run(Path(folder) / "run") as run:
            found = run.after(0).rows
    require(found.tobytes() == rows.tobytes(), "the rows that come back are not those that were written")
    return f"{len(rows)} rows came back bit for bit, NaN, infinities and gaps among them"


def killed() -> str:
    """Kill a process that writes, and count what it left."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        command = [sys.executable, "-m", __name__, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = 0
            for line in process.stdout:
                said = int(line)
                if said == KILLED_AT:
                    process.send_signal(signal.SIGKILL)
                    break
            rest = process.stdout.read().splitlines()
        said = max([said, *(int(line) for line in rest[:-1])])  # the last line may be cut
        require(said >= KILLED_AT, "the writing process ended before it was killed")
        with open_run(path) as run:
            steps = run.after(0).steps.tolist()
    require(steps == list(range(len(steps))), "the steps that are there have gaps")
    require(len(steps) >= said, f"{said} samples were written, {len(steps)} are there")
    return f"a writer killed by SIGKILL left all of the {said} samples that it had written"


def damaged() -> str:
    """Damage a run, and try to read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        writer = start(path)
        for step in range(130):
            writer.sample(step, float(step), np.zeros(LAYOUT.width, np.float32))
        writer.close(RunState.FINISHED)
        with closing(sqlite3.connect(path / FILE)) as connection, connection:
            connection.execute("UPDATE chunk SET data = substr(data, 1, 9)")
        try:
            open_run(path).close()
        except StoreError as error:
            require("is damaged" in str(error), f"a damaged run is refused as {error}")
            return "a run with cut values is called damaged"
    raise FailedError("a run with cut values is read as if it were whole")


def _write_until_killed(folder: Path) -> None:
    writer = start(folder)
    for step in range(1_000_000):
        writer.sample(step, float(step), np.full(LAYOUT.width, step, np.float32))
        print(step + 1, flush=True)


if __name__ == "__main__":
    _write_until_killed(Path(sys.argv[1]))
