import re
import shutil

import pytest


@pytest.fixture
def bad_and_lossy(runs, make_findings):
    """A run with four open errors, one that lost samples, and one that cannot be read."""
    runs.finished("naive", naive=True)
    writer = runs.start("lossy")
    runs.write(writer, range(20))
    writer.close("failed", dropped=12)
    (runs.directory / "broken").mkdir()
    (runs.directory / "broken" / "run.sqlite").write_bytes(b"nothing of ours" * 100)
    return runs


def numbers(client) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_a_service_that_can_read_its_folder_is_alive_and_one_that_cannot_is_not(runs, open_client):
    client = open_client(runs.directory, token="key", host="http://pod.example")
    assert client.get("/healthz").json()["status"] == "ok"
    assert client.head("/healthz").status_code == 200
    shutil.rmtree(runs.directory)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "cannot be read" in answer.json()["detail"]


def test_runs_findings_and_samples_are_counted(bad_and_lossy, open_client, list_runs):
    client = open_client(bad_and_lossy.directory)
    list_runs(client)
    found = numbers(client)
    assert found['stabmon_runs{health="error",process="finished"}'] == 1
    assert found['stabmon_runs{health="healthy",process="failed"}'] == 1
    assert found['stabmon_runs{health="unknown",process="unreadable"}'] == 1
    assert found['stabmon_open_findings{rule="ATT001",severity="error"}'] == 4
    assert not [name for name in found if "GRD001" in name], "it has cleared"
    assert found["stabmon_stored_samples"] == 320
    assert found["stabmon_dropped_samples"] == 12


def test_requests_are_timed_by_route_and_never_by_a_name_that_a_client_chose(client):
    for name in ("naive", "nope", "other"):
        client.get(f"/api/v1/runs/{name}")
    client.request("BREW", "/api/v1/runs")
    found = numbers(client)
    count = 'stabmon_request_seconds_count{method="GET",route="/runs/{name}",status="%s"}'
    assert (found[count % 200], found[count % 404]) == (1, 2)
    assert not [name for name in found if re.search("naive|nope|BREW", name)]


def test_the_numbers_need_the_token(runs, open_client):
    client = open_client(runs.directory, token="key")
    assert client.get("/metrics").status_code == 401
    answer = client.get("/metrics", headers={"Authorization": "Bearer key"})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_the_size_of_a_scrape_does_not_grow_with_the_number_of_runs(runs, open_client, list_runs):
    runs.finished("run-0", naive=True)
    client = open_client(runs.directory)
    list_runs(client)
    client.get("/metrics")
    lines = len(client.get("/metrics").text.splitlines())
    for index in range(1, 6):
        shutil.copytree(runs.directory / "run-0", runs.directory / f"run-{index}")
    list_runs(client)
    assert len(client.get("/metrics").text.splitlines()) == lines
