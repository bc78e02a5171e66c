"""Runs in folders within the served one: listed, opened and followed by their path."""

import pytest

from stabmon.records import RunState


@pytest.fixture
def tree(runs, make_store):
    runs.finished("top")
    for path in ("sweep/lr-1", "sweep/deep/lr-2", "archive/old"):
        make_store(runs.directory / path.rpartition("/")[0]).finished(path.rpartition("/")[2])
    return runs


def test_runs_in_folders_are_listed_and_opened_by_their_path(tree, open_client, list_runs):
    with open_client(tree.directory) as client:  # one event loop for all its requests
        assert {run["name"] for run in list_runs(client)["runs"]} == {
            "top",
            "sweep/lr-1",
            "sweep/deep/lr-2",
            "archive/old",
        }
        for name in ("sweep/lr-1", "sweep/deep/lr-2", "sweep%2Flr-1"):
            assert client.get(f"/api/v1/runs/{name}").json()["metrics"]
            assert client.get(f"/api/v1/runs/{name}/findings").json() == []
            assert client.get(f"/api/v1/runs/{name}/series/loss").status_code == 200
            assert "event: end" in client.get(f"/api/v1/runs/{name}/live?series=loss").text
        assert '"follow":0' in client.get("/api/v1/live?follow=sweep/lr-1/0/loss").text


@pytest.mark.parametrize("name", ["../two/naive", "sweep/../top", "sweep//lr-1", "/etc", "sweep/lr-1/", "a/b/c/d/e/f"])
def test_a_path_that_leaves_the_folder_is_no_run(tree, open_client, name):
    client = open_client(tree.directory)
    answer = client.get(f"/api/v1/runs/{name.replace('/', '%2F').replace('..', '%2E%2E')}")
    assert answer.status_code == 404
    assert "there is no run" in answer.json()["detail"]


def test_a_link_to_a_folder_above_is_not_followed_for_ever(tree, open_client, list_runs):
    (tree.directory / "sweep" / "loop").symlink_to(tree.directory)
    assert len(list_runs(open_client(tree.directory))["runs"]) == 4


def test_tags_of_a_configuration_are_in_the_list(runs, open_client, list_runs, make_info):
    from stabmon.series import Layout
    from stabmon.store import RunWriter

    for name, tags in (("one", ["paper", "paper", 3]), ("two", "alone"), ("three", {"no": "list"})):
        info = make_info(name).model_copy(update={"config": {"tags": tags}})
        RunWriter.create(runs.directory / name, info, Layout.of([("loss", None, 1)])).close(RunState.FINISHED)
    found = {run["name"]: run["tags"] for run in list_runs(open_client(runs.directory))["runs"]}
    assert found == {"one": ["paper", "3"], "two": ["alone"], "three": []}
