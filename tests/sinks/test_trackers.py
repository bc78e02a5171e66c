"""Sinks for experiment trackers, with the real packages and without a network."""

import math
import socket
import subprocess
import sys
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import pytest

from stabmon.failures import Failures
from stabmon.findings import Finding
from stabmon.records import Evidence, ModelMap, RunInfo, RunState, Severity
from stabmon.series import MISSING, Layout
from stabmon.sinks.spacing import Apart
from stabmon.sinks.tracker import TrackerSink, active_trackers

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:ResourceWarning")

INFO = RunInfo(name="run", created=datetime(2026, 1, 1, tzinfo=UTC), model=ModelMap(attentions=(), parameters=7))
LAYOUT = Layout.of([("loss", None, 1), ("row_mass", "layers.3", 2), ("branch_ratio", "layers.3", 1)])
ROW = np.array([7, 1, 3, 0.5], np.float32)
BAD = np.array([7, np.nan, np.nan, MISSING], np.float32)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Let nothing connect to another host."""
    asked, connect = [], socket.socket.connect

    def local(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            asked.append(address)
            raise OSError(f"a connection to {address} was asked for")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)
    yield
    assert asked == []


def finding(severity=Severity.ERROR, code="ATT001"):
    return Finding(
        code=code,
        name="heavy-rows",
        severity=severity,
        evidence=Evidence.MEASURED,
        layer="layers.3",
        head=None,
        metric="row_mass",
        value=30.0,
        limit=3.0,
        message="rows sum to 30 | not 1",
        cause="the bias is too high",
        opened=0,
        peak=0,
        last=0,
    )


def record(sink, user, rows=(ROW, ROW, BAD)):
    """Let ``sink`` take a run in which ``user`` logs after each row."""
    sink.start(INFO, LAYOUT)
    for step, row in enumerate(rows):
        user(step)
        sink.sample(10 * step, 100.0 + step, row)
        sink.findings([finding(), finding(Severity.INFO, "ATT009")])
    sink.close(RunState.FINISHED)


class TestWandb:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        wandb = pytest.importorskip("wandb")
        for place in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            monkeypatch.setenv(place, str(tmp_path))
        quiet = wandb.Settings(silent=True, console="off")
        run = wandb.init(mode="offline", project="p", dir=tmp_path, settings=quiet)
        yield run
        run.finish()

    def test_numbers_join_the_rows_of_the_user_whose_steps_do_not_shift(self, run, tmp_path, wait_until):
        from stabmon.sinks.wandb_sink import WandbSink
        from tests.sinks.wandb_file import history, is_whole

        record(WandbSink(run, apart=0.0), lambda step: run.log({"mine": step}, step=2 * step))
        run.finish()
        wait_until(lambda: is_whole(tmp_path))
        rows = history(tmp_path)
        assert [(row["_step"], row["mine"]) for row in rows] == [(0, 0), (2, 1), (4, 2)]
        assert [row["stabmon/step"] for row in rows] == [0, 10, 20]
        assert [row["stabmon/row_mass/layers.03"] for row in rows][:2] == [2.0, 2.0]
        assert math.isnan(rows[2]["stabmon/row_mass/layers.03"])
        assert [row["stabmon/branch_ratio/layers.03"] for row in rows] == [0.5, 0.5, None]
        assert not any("loss" in name for row in rows for name in row)

    def test_alerts_are_one_a_rule_and_the_findings_a_table(self, run, tmp_path, wait_until):
        from stabmon.sinks.wandb_sink import WandbSink
        from tests.sinks.wandb_file import alerts, is_whole

        record(WandbSink(run), lambda step: run.log({"mine": step}))
        assert run.summary["stabmon/health"].startswith("Unhealthy since step 0")
        run.finish()
        wait_until(lambda: is_whole(tmp_path))
        ((level, title, text),) = alerts(tmp_path)
        assert (level, title) == ("ERROR", "stabmon: ATT001 heavy-rows")
        assert "rows sum to 30" in text
        (table,) = tmp_path.rglob("*.table.json")
        assert "heavy-rows" in table.read_text()

    def test_an_active_run_is_found(self, run):
        (sink,) = active_trackers(Failures())
        assert sink.name == "Weights & Biases"


class TestMlflow:
    @pytest.fixture
    def mlflow(self, tmp_path, monkeypatch):
        mlflow = pytest.importorskip("mlflow")
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri(f"file://{tmp_path}/store")
        yield mlflow
        while mlflow.active_run():
            mlflow.end_run()

    def test_numbers_tags_and_findings_arrive(self, mlflow):
        with mlflow.start_run() as run:
            (sink,) = active_trackers(Failures())
            sink._apart = Apart(0.0)
            record(sink, lambda step: mlflow.log_metric("mine", step))
        client = mlflow.MlflowClient()
        points = client.get_metric_history(run.info.run_id, "stabmon/row_mass/layers.03")
        assert [(point.step, point.value) for point in points[:2]] == [(0, 2.0), (10, 2.0)]
        assert math.isnan(points[2].value)
        assert [
            point.step for point in client.get_metric_history(run.info.run_id, "stabmon/branch_ratio/layers.03")
        ] == [0, 10]
        assert [point.step for point in client.get_metric_history(run.info.run_id, "mine")] == [0, 0, 0]
        tags = client.get_run(run.info.run_id).data.tags
        assert tags["stabmon.ATT001"].startswith("error: in layers.3 since step 0")
        assert "stabmon.ATT009" not in tags
        assert tags["stabmon.health"].startswith("Unhealthy")
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/stabmon/findings.md")
        assert "rows sum to 30 \\| not 1" in text


class TestTrackio:
    @pytest.fixture
    def run(self, tmp_path_factory, monkeypatch):
        if "trackio" not in sys.modules:  # it reads this when it is imported
            monkeypatch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        trackio = pytest.importorskip("trackio")
        run = trackio.init(project=f"p{uuid4().hex}", name="run", embed=False, auto_log_gpu=False, auto_log_cpu=False)
        yield run
        run.finish()
        trackio.context_vars.current_run.set(None)

    @staticmethod
    def rows(run):
        from trackio.sqlite_storage import SQLiteStorage

        run.finish()
        return SQLiteStorage.get_logs(run.project, "run"), SQLiteStorage.get_alerts(run.project)

    def test_numbers_are_logged_at_the_users_steps_which_do_not_shift(self, run):
        (sink,) = active_trackers(Failures())
        record(sink, lambda step: run.log({"mine": step}))
        rows, alerts = self.rows(run)
        assert [row["step"] for row in rows if "mine" in row] == [0, 1, 2]
        ours = [row for row in rows if "stabmon/step" in row]
        assert [(row["step"], row["stabmon/step"]) for row in ours] == [(0, 0), (1, 10), (2, 20)]
        assert ours[1]["stabmon/row_mass/layers.03"] == 2.0
        assert math.isnan(ours[2]["stabmon/row_mass/layers.03"])
        assert "heavy-rows" in rows[-1]["stabmon/findings"]["_value"]
        assert [(each["level"], each["title"]) for each in alerts] == [("error", "stabmon: ATT001 heavy-rows")]

    def test_the_first_step_is_the_users_even_where_stabmon_has_samples_before(self, run):
        (sink,) = active_trackers(Failures())
        record(sink, lambda step: None)
        run.log({"mine": 1})
        rows, _ = self.rows(run)
        assert [(row["step"], row["mine"]) for row in rows] == [(0, 1)]


class Kept(TrackerSink):
    """Keeps what a tracker would get."""

    name, advice = "kept", "nothing"

    def __init__(self):
        super().__init__()
        self.steps, self.alerts = [], []

    @classmethod
    def active(cls):
        return None

    def numbers(self, step, time, numbers):
        self.steps.append(step)
        return True

    def alert(self, entry):
        self.alerts.append((entry.code, str(entry.severity)))

    def summary(self, found, findings):
        self.health = found.health


def test_a_point_a_second_is_sent_and_always_the_first_and_the_last():
    sink = Kept()
    sink.start(INFO, LAYOUT)
    for step in range(26):
        sink.sample(step, 100.0 + 0.125 * step, ROW)
    sink.close(RunState.FINISHED)
    assert sink.steps == [0, 8, 16, 24, 25]
    assert sink.health.level == "healthy"


def test_a_rule_alerts_once_a_severity_and_not_again_after_a_resumption():
    sink = Kept()
    sink.start(INFO, LAYOUT)
    sink.resumed([finding(Severity.WARNING)])
    sink.findings([finding(Severity.WARNING), finding(Severity.INFO, "ATT009")])
    sink.findings([finding(), finding(Severity.WARNING, "GRD001")])
    sink.findings([finding()])
    assert sorted(sink.alerts) == [("ATT001", "error"), ("GRD001", "warning")]


def test_no_tracker_is_imported_to_look_for_its_run():
    code = """
import sys
from stabmon.failures import Failures
from stabmon.sinks import tracker

assert tracker.active_trackers(Failures()) == []
assert not tracker.SINKS.keys() & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
