"""Requests of every kind that the description allows, and of kinds that it forbids, over real runs: schemathesis."""

import os
import subprocess
import sys

import pytest

COMMAND = "import sys; from schemathesis.cli import schemathesis; schemathesis()"
SEED = ("--seed", "1", "--no-color")


def check(address: str, *options: str) -> None:
    """Let schemathesis try every operation at ``address``."""
    command = [sys.executable, "-c", COMMAND, "run", f"{address}/api/v1/openapi.json", *options, *SEED]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_service_answers_as_it_is_described(two_runs, start_server):
    phases = ("--phases", "examples,coverage,fuzzing", "--max-examples", "5")
    check(start_server(two_runs.directory).address, "--checks", "all", *phases)


@pytest.mark.slow
def test_a_service_with_a_token_answers_nobody_without_it(two_runs):
    serve = [sys.executable, "-u", "-m", "stabmon", "serve", str(two_runs.directory), "--port", "0"]
    environment = os.environ | {"STABMON_TOKEN": "key"}
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, env=environment) as process:
        address = process.stdout.readline().split()[-1].partition("/?")[0]
        known = ("--header", "Authorization: Bearer key")
        try:
            check(address, "--checks", "ignored_auth", "--phases", "fuzzing", "--max-examples", "1", *known)
        finally:
            process.terminate()
