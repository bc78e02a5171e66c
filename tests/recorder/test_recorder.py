import logging
import os
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from stabmon.errors import StoreError
from stabmon.findings import Finding
from stabmon.recorder import Recorder, pulse
from stabmon.records import Evidence, Heartbeat, ModelMap, RunInfo, RunState, Severity
from stabmon.series import Layout
from stabmon.sinks import StoreSink
from stabmon.store import RunWriter, open_run

PATIENCE = 300
"""Seconds for the recorder's thread, which a loaded machine may not run at once."""
LAYOUT = Layout.of([("loss", None, 1), ("row_mass", "layers.0", 2)])
INFO = RunInfo(name="run", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=0))


def finding(step):
    return Finding(
        code="NUM001",
        name="non-finite",
        severity=Severity.ERROR,
        evidence=Evidence.MEASURED,
        layer=None,
        head=None,
        metric="loss",
        value=float("nan"),
        limit=0.0,
        message="the loss is NaN",
        cause="",
        opened=step,
        peak=step,
        last=step,
    )


class ListSink:
    name = "list"
    advice = "nothing is kept"

    def __init__(self, fail=()):
        self.rows, self.changed, self.states, self.beats, self.fail = [], [], [], [], fail

    def start(self, info, layout):
        if "start" in self.fail:
            raise OSError("no such device")

    def sample(self, step, time, values):
        if "sample" in self.fail:
            raise OSError("no such device")
        self.rows.append((step, values))

    def findings(self, changed):
        self.changed.append(list(changed))

    def heartbeat(self, beat):
        self.beats.append(beat)

    def close(self, state):
        self.states.append(state)


class Rules:
    def __init__(self, broken=False):
        self.findings, self.broken = (), broken

    def observe(self, step, values):
        if self.broken:
            raise ZeroDivisionError("a bug")
        if not np.isnan(values[0]):
            return []
        self.findings = (*self.findings, finding(step))
        return [self.findings[-1]]


def recorder(*sinks, finalise=lambda raw: raw * 2, width=3, **options):
    return Recorder(width, finalise, INFO, LAYOUT, sinks, **options)


def test_the_buffer_may_be_overwritten_as_soon_as_submit_returns():
    sink, buffer = ListSink(), torch.zeros(3)
    record = recorder(sink)
    for step in range(50):
        buffer.fill_(step)
        record.submit(step, buffer)
    record.close()
    assert [(step, row.tolist()) for step, row in sink.rows] == [(step, [2.0 * step] * 3) for step in range(50)]
    assert sink.states == [RunState.FINISHED]
    assert (record.samples, record.dropped) == (50, 0)


def test_findings_reach_every_sink_and_the_caller():
    one, two = ListSink(), ListSink()
    record = recorder(one, two, engine=Rules())
    record.submit(1, torch.ones(3))
    record.submit(2, torch.full((3,), torch.nan))
    assert record.flush(PATIENCE)
    assert [found.opened for found in record.findings] == [2]
    assert one.changed == two.changed == [[record.findings[0]]]
    record.close()
    assert one.changed[1:] == [list(record.findings)]


def test_at_the_end_the_sinks_get_the_last_step_of_open_findings():
    class Ongoing(Rules):
        def observe(self, step, values):
            changed = [] if self.findings else [finding(step)]
            self.findings = (finding(0).model_copy(update={"last": step}),)
            return changed

    sink = ListSink()
    record = recorder(sink, engine=Ongoing())
    for step in range(4):
        record.submit(step, torch.ones(3))
    record.close()
    assert [[found.last for found in changed] for changed in sink.changed] == [[0], [3]]


def test_a_full_queue_drops_rows_counts_them_and_reports_it_once(caplog):
    gate, sink = threading.Event(), ListSink()

    def finalise(raw):
        gate.wait(10)
        return raw

    record = recorder(sink, finalise=finalise, capacity=4)
    for step in range(20):
        record.submit(step, torch.zeros(3))
    gate.set()
    record.close()
    assert record.dropped >= 15
    assert len(sink.rows) + record.dropped == 20
    assert sink.beats[-1].dropped == record.dropped
    assert [message.count("the queue is full") for message in caplog.messages] == [1, 0]


@pytest.mark.parametrize("method", ["start", "sample"])
def test_a_failing_sink_is_reported_once_and_the_others_go_on(method, caplog):
    good = ListSink()
    record = recorder(ListSink(fail=(method,)), good)
    for step in range(5):
        record.submit(step, torch.zeros(3))
    record.close()
    assert len(good.rows) == 5
    assert len(caplog.messages) == 1
    assert "list: no such device" in caplog.messages[0]
    assert "The training goes on" in caplog.messages[0]


def test_wrong_use_found_by_a_sink_reaches_the_user_and_closes_the_others(tmp_path):
    RunWriter.create(tmp_path, INFO, LAYOUT).close(RunState.FINISHED)
    other = ListSink()
    with pytest.raises(StoreError, match="exists already"):
        recorder(other, StoreSink(tmp_path))
    assert other.states == [RunState.FAILED]


def test_a_bug_in_a_rule_is_reported_once_and_recording_goes_on(caplog):
    sink = ListSink()
    record = recorder(sink, engine=Rules(broken=True))
    for step in range(5):
        record.submit(step, torch.zeros(3))
    record.close()
    assert len(sink.rows) == 5
    assert len(caplog.messages) == 1
    assert "ZeroDivisionError('a bug')" in caplog.messages[0]


def test_a_copy_that_fails_gives_its_slot_back(caplog):
    sink = ListSink()
    record = recorder(sink, capacity=2)
    for step in range(4):
        record.submit(step, torch.zeros(5))
    record.submit(4, torch.ones(3))
    record.close()
    assert [step for step, _ in sink.rows] == [4]
    assert record.dropped == 4
    assert not any("the queue is full" in message for message in caplog.messages)


def test_findings_that_cannot_be_made_do_not_end_the_recording(caplog):
    class Odd:
        def observe(self, step, values):
            return [finding(step)]

        @property
        def findings(self):
            raise ValueError("odd")

    sink = ListSink()
    record = recorder(sink, engine=Odd())
    for step in range(3):
        record.submit(step, torch.zeros(3))
    assert record.flush(PATIENCE)
    record.close()
    assert len(sink.rows) == len(sink.changed) == 3
    assert sink.states == [RunState.FINISHED]
    assert ["ValueError('odd')" in message for message in caplog.messages] == [True]


def test_a_row_that_cannot_be_made_is_counted_as_dropped(caplog):
    def finalise(raw):
        if raw[0] == 1:
            raise ValueError("odd")
        return raw[:2] if raw[0] == 2 else raw

    sink = ListSink()
    record = recorder(sink, finalise=finalise)
    for step in range(4):
        record.submit(step, torch.full((3,), float(step)))
    record.submit(4, torch.zeros(5))
    record.close()
    assert [step for step, _ in sink.rows] == [0, 3]
    assert record.dropped == 3
    assert len(caplog.messages) == 3
    assert caplog.messages[-1] == "stabmon: samples lost: 3 of 5 reached no sink"
    assert len(record.failures.texts) == 3


def test_heartbeats_are_written_while_no_step_is_sampled(wait_until):
    sink = ListSink()
    record = recorder(sink, beat=0.01)
    record.overhead = 0.004
    wait_until(lambda: len(sink.beats) >= 5)
    record.close(RunState.FAILED)
    assert sink.beats[-1] == Heartbeat(state=RunState.RUNNING, step=-1, time=sink.beats[-1].time, overhead=0.004)
    assert sink.states == [RunState.FAILED]


def test_a_second_close_and_a_late_submit_do_nothing():
    sink = ListSink()
    record = recorder(sink)
    record.close()
    record.submit(1, torch.zeros(3))
    record.close(RunState.FAILED)
    assert record.flush(PATIENCE)
    assert (sink.rows, sink.states) == ([], [RunState.FINISHED])


SCRIPT = """
import sys, torch
from datetime import UTC, datetime
from pathlib import Path
from stabmon.recorder import Recorder
from stabmon.records import ModelMap, RunInfo
from stabmon.series import Layout
from stabmon.sinks import StoreSink

info = RunInfo(name="run", created=datetime.now(UTC), model=ModelMap(attentions=(), parameters=0))
record = Recorder(1, lambda raw: raw, info, Layout.of([("loss", None, 1)]), [StoreSink(Path(sys.argv[1]))])
for step in range(200):
    record.submit(step, torch.full((1,), float(step)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "state", "code"),
    [
        ("", RunState.FINISHED, 0),
        ("raise ValueError('diverged')", RunState.FAILED, 1),
        ("record.flush(300); import os; os._exit(9)", RunState.CRASHED, 9),
    ],
    ids=["forgotten", "exception", "killed"],
)
def test_a_run_that_nobody_closed_is_kept_in_full(ending, state, code, tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT) + ending, str(tmp_path)], capture_output=True
    )
    assert process.returncode == code, process.stderr.decode()
    with open_run(tmp_path) as run:
        assert run.read("loss").values[:, 0].tolist() == list(range(200))
        beat = run.heartbeat()
        assert beat.step == 199
        assert beat.state is state


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_leaves_the_run_alone(tmp_path):
    record = recorder(StoreSink(tmp_path / "run"))
    record.submit(0, torch.zeros(3))
    assert record.flush(PATIENCE)
    child = os.fork()
    if child == 0:
        record.submit(1, torch.zeros(3))
        record.close(RunState.FAILED)
        os._exit(0)
    os.waitpid(child, 0)
    record.submit(1, torch.ones(3))
    record.close()
    with open_run(tmp_path / "run") as run:
        assert run.heartbeat().state is RunState.FINISHED
        assert run.read("loss").values[:, 0].tolist() == [0.0, 2.0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_rows_are_those_of_their_own_step():
    sink, buffer = ListSink(), torch.zeros(100_000, device="cuda")
    record = Recorder(100_000, lambda raw: raw[:3].copy(), INFO, LAYOUT, [sink], capacity=64)
    for step in range(64):
        buffer.fill_(step)
        record.submit(step, buffer)
    record.close()
    assert [row[0] for _, row in sink.rows] == list(range(64))


class Stuck(ListSink):
    """A sink whose first sample takes until ``gate`` opens."""

    name = "stuck"

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()

    def sample(self, step, time, values):
        self.gate.wait(60)
        super().sample(step, time, values)


def test_a_sink_that_hangs_is_named_and_the_others_are_closed_with_everything():
    stuck, good = Stuck(), ListSink()
    record = recorder(stuck, good, share=0.1)
    for step in range(5):
        record.submit(step, torch.zeros(3))
    assert not record.flush(0.1)
    assert record.flush(sinks=False)
    record.close()
    assert [step for step, _ in good.rows] == list(range(5))
    assert good.states == [RunState.FINISHED]
    (failure,) = record.failures.texts
    assert failure == (
        "stuck hangs: one call has taken 0 s and goes on; the run is closed without the 5 samples that wait for it"
    )
    stuck.gate.set()


def test_sinks_that_end_late_are_not_called_lost_samples():
    class Late(ListSink):
        def close(self, state):
            may_end.wait(60)
            super().close(state)

    may_end, sink = threading.Event(), Late()
    record = recorder(sink)
    record.submit(0, torch.zeros(3))
    record.flush()
    record.close(timeout=0.1)
    may_end.set()
    record.join()
    assert [len(sink.rows), sink.states] == [1, [RunState.FINISHED]]
    (failure,) = record.failures.texts
    assert "all samples were made" in failure


def test_a_call_that_hangs_is_reported_while_the_run_goes_on(wait_until):
    stuck = Stuck()
    record = recorder(stuck, beat=0.01, hanging=0.05)
    record.submit(0, torch.zeros(3))
    wait_until(lambda: record.failures.texts)
    assert record.failures.texts == ("stuck hangs: one call has taken 0 s and goes on; the rest is recorded",)
    stuck.gate.set()
    record.close()
    assert [step for step, _ in stuck.rows] == [0]


def test_rules_that_loop_are_ended_and_the_run_is_closed(wait_until):
    class Loops:
        findings, running = (), "USR001"

        def observe(self, step, values):
            while step == 0:
                pass
            self.findings = (finding(step),)
            return self.findings

    sink = ListSink()
    record = recorder(sink, engine=Loops(), share=0.1)
    for step in range(2):
        record.submit(step, torch.zeros(3))
    record.close()
    assert [step for step, _ in sink.rows] == [0, 1]
    assert sink.changed[-1][0].opened == 1
    hangs, failed = record.failures.texts
    assert hangs.startswith("rule USR001 hangs: one call has taken 0 s and goes on; it is ended")
    assert failed.startswith("the rules: failed at step 0: TimeoutError")


def test_the_time_of_the_heartbeat_does_not_change_while_no_step_ends(wait_until, monkeypatch):
    monkeypatch.setattr(pulse, "PAUSE", 0.0)
    sink = ListSink()
    record = recorder(sink, beat=0.01)
    wait_until(lambda: len(sink.beats) >= 5)
    assert sink.beats[-1].time == pytest.approx(sink.beats[0].time, abs=0.005)
    record.moved()
    record.close()
    assert sink.beats[-1].time > sink.beats[0].time


def test_a_run_that_goes_on_hands_the_earlier_findings_to_the_sinks_at_once():
    class Remembers(ListSink):
        def resumed(self, findings):
            self.earlier = findings

    rules = Rules()
    rules.findings = (finding(3),)
    one, two = ListSink(), Remembers()
    record = recorder(one, two, engine=rules)
    assert record.flush()
    assert [[found.key for found in changed] for changed in one.changed] == [[finding(3).key]]
    assert ([found.key for found in two.earlier], two.changed) == ([finding(3).key], [])
    record.close()


def test_a_handler_of_the_log_that_raises_stops_nothing():
    class Raises(logging.Handler):
        def handle(self, record):
            raise OSError("no log")

    handler, log = Raises(), logging.getLogger("stabmon")
    log.addHandler(handler)
    try:
        record = recorder(ListSink(fail=("sample",)))
        record.submit(0, torch.zeros(7))
        record.close()
    finally:
        log.removeHandler(handler)
    assert record.dropped == 1
    assert len(record.failures.texts) == 2


def test_failures_are_logged_under_stabmon(caplog):
    record = recorder(ListSink(fail=("sample",)))
    with caplog.at_level(logging.WARNING, logger="stabmon"):
        record.submit(0, torch.zeros(3))
        record.close()
    assert [line.name for line in caplog.records] == ["stabmon"]
