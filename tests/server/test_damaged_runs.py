"""Damaged and hostile runs through the service: every route says what is wrong, and the healthy run is served on."""

import re

import pytest

from tests import damaged_runs

RUN = "/api/v1/runs/odd"
ROUTES = ("", "/findings", "/series/loss", "/heatmap/row_mass", "/live")


@pytest.mark.parametrize("name", damaged_runs.DAMAGED)
def test_every_route_calls_a_damaged_run_damaged_and_serves_the_others(name, tmp_path, open_client, list_runs):
    damaged_runs.make(tmp_path / "odd", name)
    damaged_runs.healthy(tmp_path / "good")
    client = open_client(tmp_path)
    for route in ROUTES:
        response = client.get(RUN + route)
        assert response.status_code == 409, (route, response.text)
        assert re.search(damaged_runs.SAYS, response.json()["detail"])
    good, odd = list_runs(client)["runs"]
    assert good["problem"] is None
    assert re.search(damaged_runs.SAYS, odd["problem"])
    assert client.get("/api/v1/runs/good/series/loss").status_code == 200
