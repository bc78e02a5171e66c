"""Experiment trackers whose run is active while a model is watched."""

import pytest
import torch

import stabmon
from stabmon.findings.digest import alarming

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:ResourceWarning")
STEPS = 4


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/store")
    return mlflow


@pytest.fixture
def train(tiny, loss):
    def trained(**options):
        model = tiny(bias=0.0)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01)
        with stabmon.watch(model, optimizer, dir=None, console=False, **options) as monitor:
            for step in range(STEPS):
                loss(model, step).backward()
                optimizer.step()
                optimizer.zero_grad()
        return monitor, model

    return trained


def test_an_active_run_gets_the_numbers_and_findings_and_the_training_keeps_its_bits(mlflow, train):
    with mlflow.start_run() as run:
        monitor, watched = train()
    _, alone = train()
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))
    assert monitor.failures == ()
    client = mlflow.MlflowClient()
    points = client.get_metric_history(run.info.run_id, "stabmon/attention_norm/layers.01")
    assert [point.step for point in points] == [0, STEPS - 1]
    tags = client.get_run(run.info.run_id).data.tags
    assert {f"stabmon.{finding.code}" for finding in alarming(monitor.findings)} <= tags.keys()
    assert tags["stabmon.health"]


def test_trackers_can_be_switched_off_or_be_given_as_a_sink(mlflow, train):
    from stabmon.sinks.mlflow_sink import MlflowSink

    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        train(trackers=False)
        assert client.get_run(run.info.run_id).data.metrics == {}
        train(sinks=[MlflowSink(run.info.run_id, apart=0.0)])
    points = client.get_metric_history(run.info.run_id, "stabmon/attention_norm/layers.01")
    assert [point.step for point in points] == list(range(STEPS))


def test_a_tracker_that_fails_is_reported_and_the_training_goes_on(mlflow, train):
    with mlflow.start_run() as run:
        mlflow.end_run()
        client = mlflow.MlflowClient()
        client.delete_run(run.info.run_id)
        from stabmon.sinks.mlflow_sink import MlflowSink

        monitor, _ = train(sinks=[MlflowSink(run.info.run_id)])
    assert monitor.steps == STEPS
    assert any(text.startswith("MLflow: ") for text in monitor.failures)
