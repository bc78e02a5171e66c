"""The service as a process of its own, over real sockets."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx
import pytest

from stabmon.errors import StabmonError
from stabmon.server.encoding import unpack
from stabmon.server.serve import ServeError, bind, serve, url


def read_events(lines: Iterator[str], count: int) -> list[tuple[str, int, str]]:
    """Read ``kind, id, data`` of the next events of an open stream."""
    found, fields = [], {}
    for line in lines:
        if line:
            key, _, value = line.partition(": ")
            fields[key] = value
        elif "event" in fields:
            found.append((fields["event"], int(fields["id"]), fields["data"]))
            fields = {}
            if len(found) == count:
                return found
    return found


def test_sigterm_ends_an_open_stream_and_the_process(runs, start_server):
    runs.write(runs.start("live"), range(3))
    server = start_server(runs.directory)
    with httpx.stream("GET", f"{server.address}/api/v1/runs/live/live", timeout=None) as response:
        lines = response.iter_lines()
        read_events(lines, 1)
        server.process.send_signal(signal.SIGTERM)
        list(lines)
        assert server.process.wait() == 0
    assert "Traceback" not in server.said()


def test_requests_that_the_end_of_the_server_cuts_off_leave_no_traceback(runs, start_server):
    runs.write(runs.start("live"), range(3))
    server = start_server(runs.directory)
    host, port = server.address.removeprefix("http://").split(":")
    request = f"GET /api/v1/runs/live/live HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    with ExitStack() as clients:
        for _ in range(100):
            clients.enter_context(socket.create_connection((host, int(port)))).sendall(request)
        server.process.send_signal(signal.SIGTERM)
        assert server.said() == ""
    assert server.process.returncode == 0


def test_small_answers_are_sent_at_once():
    with closing(bind("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        assert listener.proto == socket.IPPROTO_TCP, "asyncio sets TCP_NODELAY where the protocol says TCP"


def test_a_lost_stream_goes_on_where_it_was(runs, start_server):
    writer = runs.start("live")
    runs.write(writer, range(3))
    server = start_server(runs.directory)
    path = f"{server.address}/api/v1/runs/live/live?series=loss&cursor=0"
    with httpx.stream("GET", path, timeout=None) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        kind, cursor, _ = read_events(response.iter_lines(), 1)[0]
    assert (kind, cursor) == ("points", 3)
    runs.write(writer, range(3, 5))
    with httpx.stream("GET", path, headers={"Last-Event-ID": str(cursor)}, timeout=None) as response:
        kind, cursor, data = read_events(response.iter_lines(), 1)[0]
    assert (kind, cursor) == ("points", 5)
    packed = json.loads(data)["loss"]
    assert unpack(base64.b64decode(packed)).steps.tolist() == [3, 4]


def test_a_client_that_leaves_takes_its_stream_with_it(runs, start_server, wait_until):
    runs.write(runs.start("live"), range(3))
    server = start_server(runs.directory)
    files = f"/proc/{server.process.pid}/fd"
    if not os.path.isdir(files):
        pytest.skip("open files are counted through /proc")
    before = len(os.listdir(files))
    for _ in range(20):
        with httpx.stream("GET", f"{server.address}/api/v1/runs/live/live", timeout=None) as response:
            read_events(response.iter_lines(), 1)
    wait_until(lambda: len(os.listdir(files)) <= before + 2)


def test_a_port_in_use_is_an_error_that_names_it_and_another(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} .* in use.*--port") as caught:
            serve(tmp_path, port=port)
    assert isinstance(caught.value, StabmonError)


def test_an_open_address_needs_a_token(tmp_path):
    with pytest.raises(ServeError, match=r"0\.0\.0\.0 .* needs a token.*--token"):
        serve(tmp_path, host="0.0.0.0", port=0)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ServeError, match="nowhere is not a folder"):
        serve(tmp_path / "nowhere", port=0)


def test_an_address_of_another_machine_is_an_error_that_says_so():
    with pytest.raises(ServeError, match=r"192\.0\.2\.1.*--host"):
        bind("192.0.2.1", 0)


def test_an_address_can_be_opened():
    assert url("0.0.0.0", 8420, {"login": "a b&c"}) == "http://127.0.0.1:8420/?login=a%20b%26c"
    assert url("::1", 80, {}) == "http://[::1]:80/"
    assert url("127.0.0.1", 80, {"run": "naive", "with": "fixed"}) == "http://127.0.0.1:80/?run=naive&with=fixed"


@pytest.mark.parametrize("way", ["file", "environment"])
def test_the_printed_address_holds_no_token_and_lets_one_browser_in(way, tmp_path):
    (tmp_path / "token").write_text("correct hörse\n", encoding="utf-8")
    given = ["--token-file", str(tmp_path / "token")] if way == "file" else []
    environment = os.environ | ({"STABMON_TOKEN": "correct hörse"} if way == "environment" else {})
    command = [sys.executable, "-u", "-m", "stabmon", "serve", str(tmp_path), "--port", "0", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        address = process.stdout.readline().split()[-1]
        assert "rse" not in address
        runs = httpx.URL(address).copy_with(path="/api/v1/runs", query=None)
        with httpx.Client(follow_redirects=True) as browser:
            assert browser.get(address).status_code == 200
            assert browser.get(runs).status_code == 200
        assert httpx.get(address).status_code == 401
        assert httpx.get(runs, params={"token": "correct hörse"}, follow_redirects=True).status_code == 200
        process.terminate()


def test_the_server_loads_no_torch():
    code = "import sys, stabmon.server.serve; print('torch' in sys.modules, 'triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"], done.stderr
