"""A fault of the disk, the clock, a sink or a rule amid a training: the same bits, and nothing lost unsaid."""

import contextlib
import itertools
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stabmon import Schedule, watch
from stabmon.errors import StoreError
from stabmon.nn import Block, SigmoidAttention
from stabmon.records import Evidence, RunState, Severity
from stabmon.rules import registry
from stabmon.store import FILE, open_run
from tests import damaged_runs

STEPS = 30
MISSING, ANY = None, -1
"""Rows of a run that cannot be opened any more, and of one that its log may bring back."""


def train(meanwhile=None, **options):
    """Train 30 steps, the middle ten in ``meanwhile(monitor)``; return the weights' bytes and the closed monitor."""
    torch.manual_seed(0)
    model = nn.Sequential(Block(16, SigmoidAttention(16, 2, max_length=8)))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    batch, monitor = torch.randn(2, 8, 16), None

    def steps(count):
        for _ in range(count):
            loss = (model(batch) - batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if monitor is not None:
                monitor.log(loss=loss)

    if options:
        monitor = watch(model, optimizer, name="run", console=False, schedule=Schedule(dense=STEPS), **options)
    steps(10)
    with meanwhile(monitor) if meanwhile else contextlib.nullcontext():
        steps(10)
        if monitor is not None:
            monitor.flush(3.0)
    steps(10)
    if monitor is not None:
        monitor.close()
    return b"".join(p.detach().numpy().tobytes() for p in model.parameters()), monitor


@pytest.fixture(scope="module")
def bits():
    return train()[0]


@contextlib.contextmanager
def locked(monitor):
    connection = sqlite3.connect(monitor.path / FILE, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.close()


@contextlib.contextmanager
def locked_beyond_the_end(monitor, seconds=3.0):
    connection = sqlite3.connect(monitor.path / FILE, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    yield
    threading.Timer(seconds, connection.close).start()


def locked_half_a_minute_beyond_the_end(monitor):
    return locked_beyond_the_end(monitor, 30.0)


@contextlib.contextmanager
def read_only(monitor):
    """Take the right to write from folder and files, and from root that it needs none."""
    monitor.flush()
    root, paths = os.geteuid() == 0, [monitor.path, *monitor.path.iterdir()]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & 0o555)
    if root:
        os.seteuid(65534)
    yield
    if root:
        os.seteuid(0)
    for path in paths:
        path.chmod(modes[path])


@contextlib.contextmanager
def limited(kind, value):
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    yield
    resource.setrlimit(kind, (soft, hard))


def no_room(monitor):
    return limited(resource.RLIMIT_FSIZE, 4096)


def no_descriptors(monitor):
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    return limited(resource.RLIMIT_NOFILE, free)


@contextlib.contextmanager
def deleted(monitor):
    monitor.flush()
    shutil.rmtree(monitor.path)
    yield


@contextlib.contextmanager
def made_anew(monitor):
    monitor.flush()
    shutil.rmtree(monitor.path)
    monitor.path.mkdir()
    (monitor.path / FILE).write_bytes(b"")
    yield


@contextlib.contextmanager
def overwritten(monitor):
    monitor.flush()
    (monitor.path / FILE).write_text("garbage " * 9999)
    yield


@contextlib.contextmanager
def moved(monitor):
    monitor.flush()
    monitor.path.rename(monitor.path.with_name("elsewhere"))
    yield


@contextlib.contextmanager
def wrong_clock(monitor):
    now, offsets = time.time, itertools.cycle((-86400.0, 3600.0, 0.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + next(offsets))
        yield


@pytest.mark.parametrize(
    ("fault", "name", "rows", "words", "failures"),
    [
        (locked, "run", STEPS, "finished", ["store: .*another process has locked it"]),
        (locked_beyond_the_end, "run", STEPS, "finished", ["store: .*another process has locked it"]),
        pytest.param(
            *(locked_half_a_minute_beyond_the_end, "run", STEPS, "finished"),
            ["store: .*another process has locked it"],
            marks=pytest.mark.slow,
        ),
        (read_only, "run", STEPS, "finished", []),
        (no_room, "run", STEPS, "finished", ["store: .*largest size.*wait in memory"]),
        (no_descriptors, "run", STEPS, "finished", []),
        (deleted, "run", MISSING, "", ["store: .*was deleted", "TensorBoard: .*was deleted", "30 of 30 samples"]),
        (made_anew, "run", MISSING, "", ["store: .*another file is at its place", "TensorBoard: ", "30 of 30 samples"]),
        (overwritten, "run", ANY, "", ["store: .*was overwritten", "30 of 30 samples of the run may be lost"]),
        (moved, "elsewhere", STEPS, "finished", ["store: .*was moved.*elsewhere.*it is written where it is now"]),
        (wrong_clock, "run", STEPS, "finished", []),
    ],
    ids=lambda value: getattr(value, "__name__", None) or (value if value in ("run", "elsewhere") else ""),
)
def test_faults_of_disk_and_clock_change_no_training(fault, name, rows, words, failures, bits, tmp_path, caplog):
    weights, monitor = train(fault, dir=tmp_path)
    assert weights == bits
    assert len(monitor.failures) == len(failures), monitor.failures
    for expected in failures:
        assert any(re.search(expected, said) for said in monitor.failures), (expected, monitor.failures)
    assert len(set(caplog.messages)) == len(caplog.messages) == len(failures)
    if rows is MISSING:
        with pytest.raises(StoreError):
            open_run(tmp_path / name)
    if rows in (MISSING, ANY):
        return
    with open_run(tmp_path / name) as run:
        assert run.read("loss").steps.tolist() == list(range(rows))
        assert run.heartbeat().words == words


def test_a_second_run_in_the_place_of_the_first_is_left_alone(bits, tmp_path):
    @contextlib.contextmanager
    def replaced(monitor):
        monitor.flush()
        shutil.rmtree(monitor.path)
        others.append(damaged_runs.healthy(monitor.path, 3, close=False))
        yield

    others = []
    weights, monitor = train(replaced, dir=tmp_path)
    assert weights == bits
    assert any("another file is at its place" in said for said in monitor.failures)
    assert any("30 of 30 samples" in said for said in monitor.failures)
    with pytest.raises(StoreError, match="being written by another monitor"):
        watch(nn.Sequential(Block(16, SigmoidAttention(16, 2, max_length=8))), dir=tmp_path, name="run", resume=True)
    (second,) = others
    second.sample(3, 1e9, np.zeros(damaged_runs.LAYOUT.width, np.float32))
    second.close(RunState.FINISHED)
    with open_run(tmp_path / "run") as run:
        assert run.read("loss").steps.tolist() == [0, 1, 2, 3]
        assert run.heartbeat().words == "finished"


class Kept:
    """A sink that keeps steps."""

    name, advice = "kept", "nothing"

    def __init__(self):
        self.steps = []

    def start(self, info, layout): ...

    def sample(self, step, time, values):
        self.steps.append(step)

    def findings(self, changed): ...

    def close(self, state): ...


class Odd(Kept):
    """A sink that does something at step 15."""

    name = "odd"

    def __init__(self, act):
        super().__init__()
        self.act = act

    def sample(self, step, time, values):
        if step == 15:
            self.act(values)


def _exit(*_):
    raise SystemExit(3)


def _write_into(values):
    values[0] = 1.0


def _rest(*_):
    threading.Event().wait(60)


@pytest.mark.parametrize(
    ("act", "failure"),
    [
        (_exit, "odd: 3; nothing"),
        (_write_into, "odd: assignment destination is read-only; nothing"),
        pytest.param(_rest, "odd hangs: one call has taken 10 s and goes on; ", marks=pytest.mark.slow),
    ],
)
def test_a_sink_that_exits_writes_or_hangs_costs_the_others_nothing(act, failure, bits, tmp_path):
    after = Kept()
    weights, monitor = train(dir=tmp_path, sinks=[Odd(act), after])
    assert weights == bits
    (said,) = monitor.failures
    assert said.startswith(failure)
    assert after.steps == list(range(STEPS))
    with open_run(tmp_path / "run") as run:
        assert (run.sizes.samples, run.heartbeat().words) == (STEPS, "finished")


def _raises(run, limits):
    raise ZeroDivisionError("a bug")
    yield


def _exits(run, limits):
    raise SystemExit(3)
    yield


def _recurses(run, limits):
    yield from _recurses(run, limits)


def _loops(run, limits):
    while True:
        pass
    yield


@pytest.mark.parametrize(
    ("check", "what"),
    [
        (_raises, "ZeroDivisionError: a bug"),
        (_exits, "SystemExit: 3"),
        (_recurses, "RecursionError: "),
        pytest.param(_loops, "TimeoutError", marks=pytest.mark.slow),
    ],
)
def test_a_rule_that_raises_exits_recurses_or_loops_is_switched_off(check, what, bits, tmp_path, caplog):
    check.__doc__ = "Flag.\n\n" + "\n".join(f"{section}: x" for section in registry.SECTIONS)
    with registry.collected() as own:
        registry.rule("USR900", "odd", severity=Severity.INFO, evidence=Evidence.MEASURED)(check)
    weights, monitor = train(dir=tmp_path, rules=list(own.values()))
    assert weights == bits
    assert f"rule USR900 is switched off: {what}" in monitor.failures[-1]
    assert sum("USR900 failed" in message for message in caplog.messages) == 1
    with open_run(tmp_path / "run") as run:
        assert (run.sizes.samples, run.heartbeat().words) == (STEPS, "finished")


PIPE = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.monitor.test_faults import *
torch.manual_seed(0)
model = nn.Sequential(Block(16, SigmoidAttention(16, 2, bias=0.0, max_length=8)))
optimizer = torch.optim.SGD(model.parameters(), 0.1)
batch = torch.randn(2, 8, 16)
with watch(model, optimizer, dir=sys.argv[1], name="run", schedule=Schedule(dense=100)) as monitor:
    for step in range(60):
        if step == 20:
            sys.stdin.read()
            optimizer.param_groups[0]["lr"] = 30.0
        (model(batch) - batch).square().mean().backward()
        optimizer.step(), optimizer.zero_grad()
        print("step", step, flush=True)
"""


@pytest.mark.slow
def test_a_closed_pipe_silences_the_console_alone(tmp_path):
    reading, writing = os.pipe()
    root = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", PIPE, str(tmp_path), root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    os.read(reading, 200)
    os.close(reading)
    out, _ = child.communicate("")
    assert child.returncode == 0
    assert out.count("step") == 60
    with open_run(tmp_path / "run") as run:
        assert (run.sizes.samples, run.heartbeat().words) == (60, "finished")
        assert run.findings()


KILLED = """
import os, sys, time, torch
import torch._dynamo, torch.distributed.tensor, stabmon.monitor.new_run, stabmon.rules, stabmon.sinks
from torch import nn
from stabmon import Schedule, watch
from stabmon.nn import Block, SigmoidAttention
from stabmon.store import RunWriter

write = RunWriter.sample

def written_by_a_slow_disk(*arguments):
    time.sleep(0.01)
    write(*arguments)

RunWriter.sample = written_by_a_slow_disk

def train(first):
    model = nn.Sequential(Block(16, SigmoidAttention(16, 2, max_length=8)))
    options = {"dir": sys.argv[1], "name": "run", "console": False, "resume": first > 0, "first_step": first}
    monitor = watch(model, schedule=Schedule(dense=10**9), **options)
    print(os.getpid(), flush=True)
    while True:
        model(torch.randn(2, 8, 16)).square().mean().backward()
        monitor.step()
        flushed = monitor.steps % FLUSHED_EVERY == 0 and monitor.flush(300)
        os.write(1, b"%d %d\\n" % (monitor.steps, flushed))  # whole, whenever the kill comes

for line in iter(sys.stdin.readline, ""):
    if os.fork() == 0:
        train(int(line))
    os.wait()
    print("ended", flush=True)
"""
FLUSHED_EVERY = 4


class Victims:
    """Trainings that are killed, forked from one process that has the imports behind it."""

    def __init__(self, folder):
        command = [sys.executable, "-c", KILLED.replace("FLUSHED_EVERY", str(FLUSHED_EVERY)), str(folder)]
        root = Path(__file__).parents[2]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)

    def train(self, first, steps):
        """Train from ``first`` on and kill after ``steps`` or some more; return the steps made and those flushed."""
        self.process.stdin.write(f"{first}\n")
        self.process.stdin.flush()
        victim = int(self.process.stdout.readline())
        said = [self.process.stdout.readline() for _ in range(steps)]
        os.kill(victim, signal.SIGKILL)
        said += iter(self.process.stdout.readline, "ended\n")
        made = [tuple(map(int, line.split())) for line in said]
        return made[-1][0], max((step for step, flushed in made if flushed), default=first)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate()


@pytest.mark.slow
def test_twenty_kills_leave_a_whole_run_with_all_that_was_flushed(tmp_path):
    first = 0
    with Victims(tmp_path) as victims:
        for number in range(20):
            made, flushed = victims.train(first, 5 + 7 * number % 11)
            with open_run(tmp_path / "run") as run:
                assert run.heartbeat().words == "crashed"
                steps = run.read("row_mass").steps.tolist()
            assert steps == list(range(len(steps)))
            assert flushed - 1 <= len(steps) <= made  # the row of the last step is made as the next one begins
            first = len(steps)
