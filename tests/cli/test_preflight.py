"""``stabmon preflight`` with its sweep and its bound, as a user runs it."""

import json

from typer.testing import CliRunner

from stabmon.cli import app


def test_the_sweep_and_the_bound_are_in_the_json_and_in_the_table() -> None:
    arguments = ["preflight", "fixed", "--device", "cpu", "--lengths", "256:2048", "--jacobian"]
    report = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert {row["length"] for row in report["sweep"]} == {256, 512, 1024, 2048}
    assert {bound["layer"] for bound in report["jacobian"]} == {row["layer"] for row in report["rows"]}
    said = " ".join(CliRunner().invoke(app, arguments).stdout.split())
    assert "is right from n = 512" in said
    assert "Bound on the Jacobian" in said
