"""The OpenAPI description, and the pages made of it; ``test_conformance`` holds the answers to it."""

import re
from html import unescape

import pytest

from stabmon.server.reference import operations, type_of


@pytest.fixture(scope="module")
def description(two_runs, open_client):
    return open_client(two_runs.directory).get("/api/v1/openapi.json").json()


def of_series(description):
    return description["paths"]["/api/v1/runs/{name}/series/{metric}"]["get"]


def reading(description):
    return [(path, item) for path, item in description["paths"].items() if "get" in item]


def test_every_get_has_a_head_with_the_same_statuses_and_no_body(description):
    for path, item in reading(description):
        assert set(item["head"]["responses"]) == set(item["get"]["responses"]), path
        assert not any("content" in answer for answer in item["head"]["responses"].values()), path


def test_every_error_has_the_one_form(description):
    for item in description["paths"].values():
        answers = [answer for operation in item.values() for answer in operation["responses"].items()]
        for status, answer in answers:
            if int(status) >= 400 and "content" in answer:  # HEAD has none
                assert answer["content"] == {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_both_forms_of_a_series_and_the_answer_to_a_known_tag_are_described(description):
    answers = of_series(description)["responses"]
    assert set(answers["200"]["content"]) == {"application/json", "application/vnd.stabmon.series"}
    assert "little-endian" in answers["200"]["content"]["application/vnd.stabmon.series"]["schema"]["description"]
    assert "content" not in answers["304"]
    assert "if-none-match" in [one["name"] for one in of_series(description)["parameters"]]


def test_a_number_of_an_answer_may_be_a_word(description):
    value = description["components"]["schemas"]["Finding"]["properties"]["value"]
    assert {"enum": ["NaN", "Infinity", "-Infinity"]} in value["anyOf"]


def test_a_parameter_is_never_null(description):
    schemas = [one["schema"] for _, item in reading(description) for one in item["get"].get("parameters", ())]
    assert not [schema for schema in schemas if "null" in str(schema)]


def test_a_token_is_described_where_one_is_needed(description, runs, open_client):
    assert of_series(description)["security"] == []
    assert "401" not in of_series(description)["responses"]
    client = open_client(runs.directory, token="key")
    described = client.get("/api/v1/openapi.json", headers={"Authorization": "Bearer key"}).json()
    assert of_series(described)["security"] == [{"bearer": []}, {"query": []}]
    assert "401" in of_series(described)["responses"]
    assert described["paths"]["/healthz"]["get"]["security"] == []


def test_the_events_of_a_stream_are_described(description):
    found = {one.path: [name for name, _ in one.events] for one in operations(description)}
    assert found["/api/v1/live"] == ["points", "status", "findings", "digest", "failures", "end", "gone"]
    assert found["/api/v1/runs/{name}/live"] == found["/api/v1/live"]


def test_the_documentation_page_names_every_request_and_record_and_loads_nothing(description, client):
    page = unescape(client.get("/api/v1/docs").text)
    for one in operations(description):
        assert f"<h2><code>{one.method} {one.path}</code></h2>" in page
    for name in description["components"]["schemas"]:
        assert f'<h3 id="{name}">' in page
    assert not re.search(r"<(script|link|img|iframe)\b|url\(", page)


def test_types_are_said_in_a_few_words():
    assert type_of({"type": "array", "items": {"$ref": "#/components/schemas/Finding"}}) == "list of Finding"
    assert type_of({"anyOf": [{"type": "integer"}, {"type": "null"}]}) == "integer, optional"
    assert type_of({"type": "string", "enum": ["packed", "json"]}) == "packed or json"
