import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from starlette.testclient import TestClient

from stabmon.findings import Digest, Finding
from stabmon.names import natural_key
from stabmon.records import Failure, RunInfo, RunState
from stabmon.reports.comparison import Comparison
from stabmon.rules import catalogue
from stabmon.series import is_missing
from stabmon.server.encoding import MEDIA_TYPE, JsonSeries, unpack
from stabmon.store import open_run

RUNS = "/api/v1/runs"


def test_the_reference_plot_of_a_rule_is_a_picture_and_an_unknown_rule_has_none(client):
    answer = client.get("/api/v1/rules/ATT001/plot")
    assert answer.headers["content-type"].startswith("image/svg+xml")
    assert ElementTree.fromstring(answer.text).tag == "{http://www.w3.org/2000/svg}svg"
    assert "did you mean 'ATT001'" in client.get("/api/v1/rules/ATT01/plot").json()["detail"]
    assert client.get("/api/v1/rules/ATT01/plot").status_code == 404


def test_the_list_names_runs_newest_first_with_state_step_and_findings_by_severity(client, list_runs):
    body = list_runs(client)
    assert [run["name"] for run in body["runs"]] == ["fixed", "naive"]
    assert [run["beat"]["state"] for run in body["runs"]] == ["finished", "finished"]
    assert [run["beat"]["step"] for run in body["runs"]] == [299, 299]
    assert [run["health"]["title"] for run in body["runs"]] == ["Healthy", "Unhealthy since step 0"]
    assert [run["process"]["title"] for run in body["runs"]] == ["Finished", "Finished"]
    assert body["runs"][1]["findings"] == {"error": 5, "warning": 1}


def test_what_a_run_lost_is_in_the_words_of_its_state(runs, open_client, list_runs):
    writer = runs.start("lossy")
    runs.write(writer, range(20))
    writer.close(RunState.FAILED, dropped=12)
    client = open_client(runs.directory)
    assert list_runs(client)["runs"][0]["beat"]["words"] == "failed, 12 of 32 samples lost"
    assert client.get(f"{RUNS}/lossy").json()["heartbeat"]["words"] == "failed, 12 of 32 samples lost"


def test_what_is_missing_in_a_run_is_listed_with_its_reason_and_steps(runs, open_client):
    missing = Failure(subject="learning rate", reason="it is no number", first_step=3, last_step=90, count=12)
    writer = runs.start("partly")
    runs.write(writer, range(2))
    client = open_client(runs.directory)
    assert client.get(f"{RUNS}/partly/failures").json() == []
    writer.failures([missing])
    assert client.get(f"{RUNS}/partly/failures").json() == [missing.model_dump()]


def test_an_empty_folder_is_an_empty_list(runs, open_client):
    assert open_client(runs.directory).get(RUNS).json()["runs"] == []


def test_a_run_is_described_with_its_map_its_heartbeat_and_its_metrics_in_the_glossarys_order(client):
    body = client.get(f"{RUNS}/naive").json()
    assert RunInfo.model_validate(body["info"]).model.attentions[3].layer == "layers.3"
    assert body["heartbeat"]["state"] == "finished"
    assert body["heartbeat"]["overhead"] == pytest.approx(0.0042)
    names = [metric["name"] for metric in body["metrics"]]
    assert names[0] == "attention_norm"
    assert names[-2:] == ["loss", "total_gradient_norm"]
    mass = next(metric for metric in body["metrics"] if metric["name"] == "row_mass")
    assert mass["healthy"] == 1.0
    assert mass["layers"] == ["layers.0", "layers.1", "layers.2", "layers.3"]
    assert mass["heads"] == [4, 4, 4, 4]


def test_findings_come_in_the_digest_s_order_and_keep_nan_as_a_word(client):
    body = client.get(f"{RUNS}/naive/findings").json()
    assert [found["severity"] for found in body] == ["error"] * 5 + ["warning"]
    assert [found["opened"] for found in body[:5]] == [0, 0, 0, 0, 120]
    assert [found["layer"] for found in body[:4]] == sorted((f["layer"] for f in body[:4]), key=natural_key)
    non_finite = next(found for found in body if found["code"] == "NUM001")
    assert (non_finite["value"], non_finite["limit"]) == ("NaN", "Infinity")
    assert np.isnan(Finding.model_validate(non_finite).value)


def test_the_digest_holds_health_counts_and_entries_ready_to_show(client):
    body = client.get(f"{RUNS}/naive/digest").json()
    assert Digest.model_validate(body).health.title == "Unhealthy since step 0"
    assert body["health"]["text"] == "large initial attention norm in layers.0 to layers.3."
    assert list(body["counts"].items()) == [("error", 5), ("warning", 1)]
    first, second = body["entries"]
    assert (first["code"], first["where"], first["when"]) == ("ATT001", "layers.0 to layers.3", "since step 0")
    assert [(one["code"], one["when"]) for one in first["symptoms"]] == [("GRD001", "steps 147 to 148")]
    assert (second["code"], second["open"]) == ("NUM001", False)
    keys = {key for entry in body["entries"] for one in (entry, *entry["symptoms"]) for key in one["keys"]}
    findings = client.get(f"{RUNS}/naive/findings").json()
    assert keys == {f"{one['code']}:{one['layer'] or ''}:{one['opened']}" for one in findings}


def test_the_digest_of_a_run_without_a_sample_says_that_it_waits(runs, open_client):
    runs.start("new")
    health = open_client(runs.directory).get(f"{RUNS}/new/digest").json()["health"]
    assert (health["level"], health["title"]) == ("info", "Waiting for the first step")


def test_a_series_keeps_every_bit_of_what_was_recorded_nan_and_missing_included(client, two_runs):
    response = client.get(f"{RUNS}/naive/series/attention_norm", params={"layer": "layers.2"})
    assert response.headers["content-type"] == MEDIA_TYPE
    series = unpack(response.content)
    with open_run(two_runs.directory / "naive") as run:
        stored = run.read("attention_norm", layer="layers.2").values
    assert series.values.tobytes() == stored.tobytes()
    assert [spot.head for spot in series.spots] == [0, 1, 2, 3]
    odd = np.isnan(series.values) & ~is_missing(series.values)
    assert np.argwhere(odd).tolist() == [[120, 1]]
    assert series.steps[is_missing(series.values).all(axis=1)].tolist() == list(range(200, 206))


def test_a_series_without_a_layer_has_one_column_a_layer_and_a_range_cuts_it(client):
    series = unpack(client.get(f"{RUNS}/fixed/series/row_mass", params={"start": 10, "stop": 20}).content)
    assert series.steps.tolist() == list(range(10, 20))
    assert [(spot.layer, spot.head) for spot in series.spots] == [(f"layers.{index}", None) for index in range(4)]
    assert series.cursor == 300


def test_a_downsampled_series_keeps_every_spike_in_its_bounds(client):
    whole = unpack(client.get(f"{RUNS}/naive/series/total_gradient_norm").content)
    small = unpack(client.get(f"{RUNS}/naive/series/total_gradient_norm", params={"points": 10}).content)
    assert len(small.steps) <= 10
    assert small.high.max() == whole.values.max()
    assert small.low.min() == whole.values.min()


def test_a_downsampled_heatmap_shows_the_value_furthest_from_healthy_and_the_nan(client):
    whole = unpack(client.get(f"{RUNS}/naive/series/attention_norm", params={"layer": "layers.2"}).content)
    cells = unpack(
        client.get(f"{RUNS}/naive/heatmap/attention_norm", params={"layer": "layers.2", "points": 6}).content
    )
    assert cells.low is None
    holds = np.searchsorted(cells.steps, 120, side="right") - 1
    assert np.argwhere(np.isnan(cells.values)).tolist() == [[holds, 1]]
    assert cells.values[0, 0] == whole.values[: cells.steps[1], 0].max()


def test_more_points_than_the_limit_are_refused_with_the_limit(client):
    response = client.get(f"{RUNS}/naive/series/loss", params={"points": 100_000})
    assert response.status_code == 422
    assert "points" in response.json()["detail"]
    assert "2000" in response.json()["detail"]
    assert "100000" in response.json()["detail"]


def test_a_finished_runs_series_is_not_sent_twice(client):
    first = client.get(f"{RUNS}/naive/series/loss")
    again = client.get(f"{RUNS}/naive/series/loss", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_running_runs_answers_are_sent_again_only_once_they_change(runs, open_client):
    writer = runs.start("young")
    runs.write(writer, range(3))
    client = open_client(runs.directory)
    for path in ("", "/young/series/loss", "/young/findings", "/young/digest"):
        tag = client.get(RUNS + path).headers["etag"]
        assert client.get(RUNS + path, headers={"If-None-Match": tag}).status_code == 304, path
    tag = client.get(f"{RUNS}/young/series/loss").headers["etag"]
    runs.write(writer, range(3, 5))
    assert client.get(f"{RUNS}/young/series/loss", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("named", ['"x", {tag}', '{tag} , W/"y"', "*", '{bare},"z"'])
def test_a_list_of_tags_is_understood(named, client):
    for path in (RUNS, f"{RUNS}/naive", f"{RUNS}/naive/series/loss"):
        tag = client.get(path).headers["etag"]
        header = {"If-None-Match": named.format(tag=tag, bare=tag.removeprefix("W/"))}
        assert client.get(path, headers=header).status_code == 304, path
        assert client.get(path, headers={"If-None-Match": '"x", W/"y"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/static/main.js", RUNS, *(f"{RUNS}/naive{part}" for part in ("", "/digest", "/series/loss", "/live"))],
)
def test_head_is_answered_as_get_is_without_a_body(path, client):
    response = client.head(path)
    assert (response.status_code, response.content) == (200, b"")
    if not path.endswith("live"):
        got = client.get(path)
        assert {**response.headers} == {**got.headers}


@pytest.mark.parametrize(
    "path",
    [
        "series/loss?start=9223372036854775808",
        "series/loss?start=-99999999999999999999",
        "heatmap/row_mass?stop=99999999999999999999999",
        "series/loss?points=99999999999999999999",
        "live?cursor=9223372036854775808",
        "series/loss?start=1.5",
    ],
)
def test_a_number_that_no_run_can_hold_is_refused_in_the_declared_shape(path, client):
    response = client.get(f"{RUNS}/naive/{path}")
    assert response.status_code == 422
    assert [*response.json()] == ["detail"]
    assert isinstance(response.json()["detail"], str)


def test_a_large_number_in_a_header_is_refused_too(client):
    assert client.get(f"{RUNS}/naive/live", headers={"Last-Event-ID": "9" * 30}).status_code == 422


@pytest.mark.parametrize("name", ["x" * 300, "%00", "a%00b", "%ff", "%ed%a0%80", "%2e", "²", "a%0ab"])
def test_a_name_that_no_run_has_is_404_whatever_its_letters(name, client):
    for part in ("", "/findings", "/series/loss", "/live"):
        assert client.get(f"{RUNS}/{name}{part}").status_code in (404, 200 if name == "%2e" else 404), part
    for path in (f"series/{name}", f"heatmap/{name}", f"series/row_mass?layer={name}", f"live?series={name}"):
        assert client.get(f"{RUNS}/naive/{path}").status_code == 404, path


def test_a_folder_whose_name_is_not_utf8_hides_no_run(runs, open_client, list_runs):
    for name in ("good", "odd"):
        runs.finished(name)
    os.rename(runs.directory / "odd", os.fsencode(runs.directory) + b"/caf\xe9")
    client = open_client(runs.directory)
    good, odd = list_runs(client)["runs"]
    assert (good["name"], good["problem"]) == ("good", None)
    assert "not UTF-8" in odd["problem"]
    assert "good" in client.get(f"{RUNS}/nope").json()["detail"]


def test_a_run_that_has_stored_nothing_yet_is_starting(runs, open_client, list_runs):
    (runs.directory / "new").mkdir()
    client = open_client(runs.directory)
    (listed,) = list_runs(client)["runs"]
    assert (listed["process"]["state"], listed["health"]["title"]) == ("starting", "Waiting for the first step")
    response = client.get(f"{RUNS}/new")
    assert response.status_code == 404
    assert "'new' is starting" in response.json()["detail"]


def test_large_answers_are_compressed(client):
    response = client.get(f"{RUNS}/naive/series/attention_norm", headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert len(unpack(response.content).steps) == 300


def test_the_rules_are_those_of_the_catalogue(client):
    body = client.get("/api/v1/rules").json()
    assert [rule["code"] for rule in body] == [rule.code for rule in catalogue()]
    assert all(rule["checks"] and rule["matters"] and rule["fix"] and rule["wrong"] for rule in body)


def test_an_unknown_run_is_404_and_names_the_known_ones(client):
    response = client.get(f"{RUNS}/nave")
    assert response.status_code == 404
    assert "'nave'" in response.json()["detail"]
    assert "fixed, naive" in response.json()["detail"]


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2Fruns", "%2Fetc"])
def test_a_name_cannot_leave_the_folder(client, name):
    assert client.get(f"{RUNS}/{name}/findings").status_code == 404


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("series/atention_norm", "attention_norm, row_mass"),
        ("heatmap/row_mass?layer=layers.9", "layers.0, layers.1, layers.2, layers.3"),
        ("series/loss?layer=layers.0", "one number a run"),
        ("live?series=nothing", "attention_norm"),
    ],
)
def test_an_unknown_metric_or_layer_is_404_and_names_what_there_is(client, path, says):
    response = client.get(f"{RUNS}/naive/{path}")
    assert response.status_code == 404
    assert says in response.json()["detail"]


def test_a_run_of_a_newer_stabmon_is_409_with_the_stores_message_and_stays_in_the_list(runs, open_client, list_runs):
    runs.finished("future")
    with sqlite3.connect(runs.directory / "future" / "run.sqlite") as connection:
        connection.execute("UPDATE stabmon SET schema = 99")
    connection.close()
    client = open_client(runs.directory)
    response = client.get(f"{RUNS}/future")
    assert response.status_code == 409
    assert "upgrade stabmon" in response.json()["detail"]
    listed = list_runs(client)["runs"]
    assert "upgrade stabmon" in listed[0]["problem"]


def test_a_foreign_file_is_409_and_does_not_hide_the_other_runs(runs, open_client, list_runs):
    runs.finished("good")
    (runs.directory / "foreign").mkdir()
    (runs.directory / "foreign" / "run.sqlite").write_text("not a database at all, but long enough to be read as one\n")
    (runs.directory / "notes").mkdir()
    (runs.directory / "notes" / "todo.txt").touch()
    client = open_client(runs.directory)
    assert client.get(f"{RUNS}/foreign").status_code == 409
    assert [run["name"] for run in list_runs(client)["runs"]] == ["good", "foreign"]
    assert client.get(f"{RUNS}/notes").status_code == 404


def test_a_run_that_is_deleted_while_it_is_read_is_410(runs, open_client, monkeypatch):
    runs.finished("doomed")
    opened = open_run

    def delete_then_open(path: Path):
        shutil.rmtree(path)
        return opened(path)

    monkeypatch.setattr("stabmon.store.run_folder.open_run", delete_then_open)
    response = open_client(runs.directory).get(f"{RUNS}/doomed")
    assert response.status_code == 410
    assert "deleted" in response.json()["detail"]


def test_nothing_can_be_written_without_a_token(client):
    for method in ("post", "put", "patch"):
        answer: Callable = getattr(client, method)
        assert answer(f"{RUNS}/naive").status_code == 405
    assert client.delete(f"{RUNS}/naive").status_code == 401
    assert client.post(RUNS).status_code == 401
    for part in ("findings", "failures", "heartbeat"):
        assert client.put(f"{RUNS}/naive/{part}").status_code == 401


def test_the_api_describes_itself_without_a_foreign_script(client):
    schema = client.get("/api/v1/openapi.json").json()
    assert "/api/v1/runs/{name}/series/{metric}" in schema["paths"]
    assert all(one.get("description") for item in schema["paths"].values() for one in item.values())
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404


def test_a_series_as_json_has_the_same_numbers_with_words_for_nan_and_null_for_what_is_missing(client):
    parameters = {"layer": "layers.2"}
    packed = unpack(client.get(f"{RUNS}/naive/series/attention_norm", params=parameters).content)
    answer = client.get(f"{RUNS}/naive/series/attention_norm", params=parameters | {"format": "json"})
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert JsonSeries.model_validate(body).columns[1].head == 1
    assert (body["unit"], body["steps"]) == ("1", packed.steps.tolist())
    assert body["values"][1][120] == "NaN"
    assert body["values"][0][200:206] == [None] * 6
    assert body["values"][0][:200] == packed.values[:200, 0].tolist()
    assert body["low"] is None
    assert len(body["times"]) == len(body["steps"])


def test_both_forms_of_a_series_have_a_tag_of_their_own(client):
    tags = [
        client.get(f"{RUNS}/naive/series/loss", params={"format": form}).headers["etag"] for form in ("packed", "json")
    ]
    assert tags[0] != tags[1]
    buckets = client.get(f"{RUNS}/naive/series/loss", params={"format": "json", "points": 10}).json()
    assert len(buckets["low"][0]) == len(buckets["high"][0]) == len(buckets["steps"]) <= 10


def test_every_error_has_the_one_form_whoever_answers_it(two_runs, open_client, monkeypatch):
    client = open_client(two_runs.directory)
    answers = [client.get("/nowhere"), client.get("/static/nothing.js"), client.put(RUNS), client.get(f"{RUNS}/nope")]
    monkeypatch.setattr("stabmon.server.routes.in_order", lambda found: 1 / 0)
    broken = TestClient(client.app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    answers.append(broken.get(f"{RUNS}/naive/findings"))
    assert [answer.status_code for answer in answers] == [404, 404, 405, 404, 500]
    assert [[*answer.json()] for answer in answers] == [["detail"]] * 5
    assert answers[2].headers["allow"] == "GET, HEAD, POST"
    assert "default-src 'none'" in answers[4].headers["content-security-policy"]


def test_runs_are_compared_with_the_first_over_all_samples(client):
    answer = client.get("/api/v1/compare", params={"run": ["naive", "fixed"]})
    body = Comparison.model_validate(answer.json())
    assert [run.name for run in body.runs] == ["naive", "fixed"]
    assert "model.bias" in {one.name for one in body.settings}
    assert body.runs[1].parts.step == 0
    assert client.get("/api/v1/compare", params={"run": ["naive", "naive"]}).status_code == 422
    assert client.get("/api/v1/compare", params={"run": ["naive"]}).status_code == 422
    assert client.get("/api/v1/compare", params={"run": ["naive", "nope"]}).status_code == 404
