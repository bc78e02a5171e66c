"""``stabmon token`` as a user runs it."""

import json

from typer.testing import CliRunner

from stabmon.cli import app
from stabmon.store.run_folder import RunFolder


def stabmon(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_token_is_printed_once_listed_by_its_name_as_given_and_useless_once_revoked(tmp_path):
    name = "gpu [bold]"
    secret = stabmon("token", "create", name, "--scope", "write", "--dir", tmp_path).strip()
    assert RunFolder(tmp_path).tokens.scope_of(secret) == "write"
    listed = stabmon("token", "list", "--dir", tmp_path)
    assert f" {name} " in listed
    assert secret not in listed
    assert [one["name"] for one in json.loads(stabmon("token", "list", "--json", "--dir", tmp_path))] == [name]
    assert stabmon("token", "revoke", name, "--dir", tmp_path) == f"revoked {name}\n"
    assert RunFolder(tmp_path).tokens.scope_of(secret) is None
