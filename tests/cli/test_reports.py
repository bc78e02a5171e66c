"""``stabmon report``, ``export`` and ``compare`` as a user runs them."""

import json

import pytest
from typer.testing import CliRunner

from stabmon.cli import app
from stabmon.errors import StoreError
from stabmon.reports.comparison import APART
from tests.server.conftest import Store


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("runs"))
    store.finished("naive", naive=True)
    store.finished("fixed")
    return store.directory


def stabmon(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_report_is_one_file(folder, tmp_path):
    said = json.loads(stabmon("report", folder / "naive", "-o", tmp_path / "r.html", "--json"))
    assert said["bytes"] == (tmp_path / "r.html").stat().st_size


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_says_what_it_wrote(form, folder, tmp_path):
    pytest.importorskip("pyarrow")
    file = tmp_path / f"naive.{form}"
    said = json.loads(stabmon("export", folder / "naive", "--format", form, "-o", file, "--json"))
    assert said == {"file": str(file), "samples": 300, "columns": 90}


def test_without_a_name_the_file_is_named_as_the_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stabmon("report", folder / "naive")
    stabmon("export", folder / "naive")
    assert {file.name for file in tmp_path.iterdir()} == {"naive.html", "naive.csv"}


def test_a_comparison_names_settings_first_then_findings_then_where_runs_part(folder):
    said = stabmon("compare", folder / "naive", folder / "fixed")
    places = [said.index(word) for word in ("Settings that differ", "model.bias", "Findings", "ATT001", "parts by")]
    assert places == sorted(places)
    result = json.loads(stabmon("compare", folder / "naive", folder / "fixed", "--json"))
    assert result["runs"][1]["parts"]["step"] == 0


def test_two_runs_of_one_name_are_distinguished_by_their_paths(folder, tmp_path):
    Store(tmp_path).finished("naive")
    result = json.loads(stabmon("compare", folder / "naive", tmp_path / "naive", "--json"))
    assert [run["name"] for run in result["runs"]] == [str(folder / "naive"), str(tmp_path / "naive")]


def test_a_run_that_is_not_there_is_named(folder):
    for command in ("report", "export"):
        with pytest.raises(StoreError, match="nowhere"):
            CliRunner().invoke(app, [command, str(folder / "nowhere")], catch_exceptions=False)


def test_the_command_compares_as_the_api_does_where_nothing_else_is_asked(folder):
    runs = folder / "naive", folder / "fixed"
    assert json.loads(stabmon("compare", *runs, "--json"))["apart"] == APART
