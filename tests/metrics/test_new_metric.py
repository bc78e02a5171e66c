"""A metric that is added by one declaration is everywhere that metrics are."""

import json
import warnings

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from stabmon import Schedule, preflight, watch
from stabmon.cli import app
from stabmon.metrics import METRICS, DataPath, Metric, Per, Place, Raw, Reduction, on_path, register, unregister
from stabmon.nn import Block, SigmoidAttention
from stabmon.records import Attention
from stabmon.series import is_missing
from stabmon.server.app import create_app
from stabmon.stats import Plan, finalise
from stabmon.store import open_run
from tests.metrics.mass_per_logit import MASS_PER_LOGIT

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    from fastapi.testclient import TestClient

NAME = MASS_PER_LOGIT.name


@pytest.fixture
def registered():
    register(MASS_PER_LOGIT)
    yield MASS_PER_LOGIT
    unregister(MASS_PER_LOGIT)


@pytest.fixture
def model():
    torch.manual_seed(0)
    blocks = [Block(16, SigmoidAttention(16, heads, max_length=12)) for heads in (4, 2)]
    return torch.nn.Sequential(*blocks)


@pytest.fixture
def batch():
    return torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def run(registered, model, batch, tmp_path):
    with watch(model, dir=tmp_path, name="one", schedule=Schedule(rows=1000), console=False) as monitor:
        model(batch).sum().backward()
        monitor.step()
        assert not monitor.failures
    return tmp_path / "one"


def _expected(model, batch):
    """Return the metric of each head of the first layer, by float64 over all rows."""
    block = model[0].double()
    query, key, _ = block.attention.project(block.attention_norm(batch.double()))
    z = query @ key.mT / 2
    mass = torch.sigmoid(z + block.attention.bias[:, None, None]).sum((0, 2, 3))
    return (mass / z.square().mean((0, 2, 3)).sqrt()).detach().numpy()


def test_a_new_metric_is_in_a_recorded_run(run, model, batch):
    with open_run(run) as reader:
        values = reader.read(NAME, layer="0").values
    np.testing.assert_allclose(values[0], _expected(model, batch), rtol=1e-5)


def test_a_new_metric_is_in_the_api(run):
    with TestClient(create_app(run.parent), base_url="http://127.0.0.1") as client:
        metrics = {metric["name"]: metric for metric in client.get("/api/v1/runs/one").json()["metrics"]}
        assert metrics[NAME] | {"layers": ["0", "1"], "heads": [4, 2]} == metrics[NAME]
        assert metrics[NAME]["text"] == MASS_PER_LOGIT.text
        assert client.get(f"/api/v1/runs/one/series/{NAME}").status_code == 200


def test_a_new_metric_is_in_the_command_line(registered):
    listed = CliRunner().invoke(app, ["metrics"])
    assert NAME in listed.output
    one = json.loads(CliRunner().invoke(app, ["metrics", NAME, "--json"]).output)
    assert one["text"] == MASS_PER_LOGIT.text
    assert one["inputs"] == ["row_mass_sum", "logit_square_sum", "pairs"]


def test_a_new_metric_is_in_the_report_of_preflight(registered, model, batch):
    report = preflight(model, batch)
    assert report.rows[0].mass_per_logit == pytest.approx(_expected(model, batch).mean(), rel=1e-5)
    assert f'"{NAME}"' in report.model_dump_json()
    headings = [column.header for column in report.table().columns]
    assert NAME.replace("_", "\n") in headings


def test_a_new_metric_has_a_curve_per_layer_in_tensorboard(run):
    events = EventAccumulator(str(run))
    events.Reload()
    assert f"{NAME}/00" in events.Tags()["scalars"]


def test_a_new_metric_is_ordered_by_the_path_of_the_data(registered):
    order = sorted(METRICS, key=on_path)
    assert order.index("logit_std") < order.index(NAME) < order.index("attention_norm")


def test_an_unregistered_metric_is_gone():
    assert NAME not in METRICS
    assert CliRunner().invoke(app, ["metrics", NAME]).exit_code != 0


def test_a_new_raw_input_has_a_place_for_a_hook_to_write_to():
    metric, raw = Metric("peak", Place.LAYER, "", DataPath.OUTPUT), Raw("peak", Per.ATTENTION, Reduction.MAX)
    register(metric, raw)
    try:
        one = Attention(layer="a", module="a", block="a", branch="a", kind="sigmoid", heads=2, head_dim=4)
        plan = Plan([one, one.model_copy(update={"layer": "b", "block": "b"})])
        buffer = plan.initial.copy()
        buffer[plan.slots[1]["peak"]] = 3.0
        row = finalise(buffer, plan)[plan.columns["peak"]]
        assert is_missing(row).tolist() == [True, False]
        assert row[1] == 3.0
    finally:
        unregister(metric, raw)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (Metric("row_mass", Place.HEAD, "", DataPath.WEIGHTS, lambda pairs: pairs), "row_mass is declared already"),
        (Metric("other", Place.HEAD, "", DataPath.WEIGHTS, lambda pears: pears), "needs the raw input 'pears'"),
        (Metric("other", Place.LAYER, "", DataPath.WEIGHTS, lambda pairs: pairs), "pairs is one number a head"),
    ],
    ids=["taken", "unknown-input", "wrong-place"],
)
def test_a_declaration_that_cannot_be_computed_is_refused(metric, message):
    with pytest.raises(ValueError, match=message):
        register(metric)
    assert "other" not in METRICS
