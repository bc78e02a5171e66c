"""Requests of every kind that the description allows, and of kinds that it forbids, over real runs: schemathesis."""

import subprocess
import sys

import pytest

COMMAND = "import sys; from schemathesis.cli import schemathesis; schemathesis()"
PHASES = "examples,coverage,fuzzing"


@pytest.mark.slow
def test_the_service_answers_as_it_is_described(two_runs, start_server):
    server = start_server(two_runs.directory)
    options = ["--checks", "all", "--phases", PHASES, "--max-examples", "5", "--seed", "1", "--no-color"]
    command = [sys.executable, "-c", COMMAND, "run", f"{server.address}/api/v1/openapi.json", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
