from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from stabmon.errors import ConfigError
from stabmon.server.app import create_app
from stabmon.server.auth import host_name, needed_for
from stabmon.store.run_folder import RunFolder
from stabmon.store.tokens import Scope

RUNS = "/api/v1/runs"
TOKEN = "correct horse"


@pytest.fixture
def guarded(two_runs, open_client: Callable):
    return open_client(two_runs.directory, token=TOKEN, host="http://192.168.0.7")


def test_without_a_token_this_machine_alone_is_answered(client):
    for host in ("127.0.0.1:8420", "localhost:8420", "[::1]:8420", "LOCALHOST"):
        assert client.get(RUNS, headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "127.0.0.1.evil.example", "192.168.0.7:8420", ""):
        response = client.get(RUNS, headers={"Host": host})
        assert response.status_code == 403, host
        assert "127.0.0.1" in response.json()["detail"]


@pytest.mark.parametrize(
    ("header", "name"), [("[::1]:8420", "::1"), ("a.b:1", "a.b"), ("LocalHost", "localhost"), ("[::1]", "::1")]
)
def test_a_host_header_is_read_without_its_port(header, name):
    assert host_name(header) == name


@pytest.mark.parametrize("path", ["/", RUNS, f"{RUNS}/naive/live", "/static/main.js", "/api/v1/openapi.json"])
def test_with_a_token_nothing_is_answered_without_it(guarded, path):
    response = guarded.get(path)
    assert response.status_code == 401
    assert "token" in response.json()["detail"]


@pytest.mark.parametrize("header", ["Bearer wrong", "Basic correct horse", "Bearer", "correct horse", "Bearer corréct"])
def test_a_wrong_header_is_refused(guarded, header):
    assert guarded.get(RUNS, headers={"Authorization": header.encode()}).status_code == 401


@pytest.mark.parametrize("token", ["with space", " around \n", "lettre é", "中文"])
def test_a_token_fits_whatever_it_is_made_of_as_header_and_in_the_address(token, two_runs, open_client):
    client = open_client(two_runs.directory, token=token, host="http://192.168.0.7")
    header = f"Bearer {token.strip()}".encode()
    assert client.get(RUNS, headers={"Authorization": header}).status_code == 200
    assert client.get("/", params={"token": token.strip()}, follow_redirects=False).status_code == 303
    assert client.get(RUNS).status_code == 200


@pytest.mark.parametrize("token", ["", "  \n", "a\nb", "a\x00"])
def test_a_token_that_is_empty_or_cannot_be_sent_is_refused(token, tmp_path, open_client):
    with pytest.raises(ConfigError, match=r"the token (is empty|holds control characters)"):
        open_client(tmp_path, token=token)


@pytest.mark.parametrize("cookie", ["a/b=1", "=", ";;=;", "a", '"', "é=ü", "x" * 4000])
def test_a_cookie_of_another_application_changes_no_answer(cookie, guarded):
    assert guarded.get(RUNS, headers={"Cookie": cookie.encode()}).status_code == 401
    allowed = {"Cookie": cookie.encode(), "Authorization": f"Bearer {TOKEN}"}
    assert guarded.get(RUNS, headers=allowed).status_code == 200


def test_a_login_code_lets_one_browser_in_once(guarded):
    code = guarded.app.state.logins.issue()
    assert guarded.get("/", params={"login": code + "x"}, follow_redirects=False).status_code == 401
    assert guarded.head("/", params={"login": code}, follow_redirects=False).status_code == 401
    response = guarded.get("/", params={"login": code, "run": "naive"}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/?run=naive")
    assert guarded.get(RUNS).status_code == 200
    guarded.cookies.clear()
    assert guarded.get("/", params={"login": code}, follow_redirects=False).status_code == 401


def test_a_bearer_header_is_enough_from_any_host(guarded):
    assert guarded.get(RUNS, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address(guarded):
    response = guarded.get("/", params={"run": "naive", "token": TOKEN, "step": "3"}, follow_redirects=False)
    assert response.status_code == 303
    assert response.headers["location"] == "/?run=naive&step=3"
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert TOKEN not in cookie
    assert guarded.get(RUNS).status_code == 200
    guarded.cookies.clear()
    assert guarded.get(RUNS).status_code == 401


def test_a_wrong_token_in_the_address_sets_no_cookie(guarded):
    response = guarded.get("/", params={"token": "wrong"}, follow_redirects=False)
    assert response.status_code == 401
    assert "set-cookie" not in response.headers


def test_the_redirect_stays_on_this_server(guarded):
    response = guarded.get("http://192.168.0.7//evil.example/x", params={"token": TOKEN}, follow_redirects=False)
    assert response.headers["location"] == "/evil.example/x"


def test_a_folder_is_never_named_to_strangers(guarded, two_runs):
    assert str(Path(two_runs.directory)) not in guarded.get(RUNS).text


def test_every_route_that_changes_something_needs_a_token_that_may(tmp_path):
    paths = create_app(tmp_path).openapi()["paths"]
    changing = [
        (method.upper(), path) for path, item in paths.items() for method in item if method not in ("get", "head")
    ]
    assert ("POST", "/api/v1/runs/{name}/samples") in changing
    for method, path in changing:
        assert needed_for(method, path) is not Scope.READ, (method, path)


@pytest.mark.parametrize("end", ["", "%0A"])
def test_nothing_is_written_without_a_token_whatever_the_path_ends_in(end, client):
    asked = [("POST", RUNS), ("POST", f"{RUNS}/naive/samples"), ("DELETE", f"{RUNS}/naive")]
    asked += [("PUT", f"{RUNS}/naive/{part}") for part in ("findings", "failures", "heartbeat")]
    for method, path in asked:
        assert client.request(method, path + end).status_code == 401, (method, path)


def test_tokens_that_cannot_be_read_let_nobody_in_and_name_no_folder(tmp_path):
    tokens = RunFolder(tmp_path).tokens
    tokens.create("page", Scope.READ)
    (tmp_path / "tokens.sqlite").write_bytes(b"no database" * 1000)
    client = TestClient(create_app(tmp_path), base_url="http://127.0.0.1")
    for given in ({}, {"token": "stabmon_x"}):
        answer = client.get(RUNS, params=given)
        assert answer.status_code == 503
        assert str(tmp_path) not in answer.text


def test_a_server_that_others_can_reach_is_read_with_a_token_alone_where_tokens_only_write(tmp_path):
    RunFolder(tmp_path).tokens.create("trainer", Scope.WRITE)
    for is_local, status in ((True, 200), (False, 401)):
        client = TestClient(create_app(tmp_path, is_local=is_local), base_url="http://127.0.0.1")
        assert client.get(RUNS).status_code == status, is_local
