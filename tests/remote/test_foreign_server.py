"""A server that is none of stabmon's, and what goes wrong in the sender itself, is said once; the sender goes on."""

import http.server
import json
import threading
from collections.abc import Iterator

import pytest

from stabmon.errors import ConfigError
from stabmon.remote.client import Client
from stabmon.remote.sender import Sender


class Foreign(http.server.BaseHTTPRequestHandler):
    """Answers every request with the server's ``answer``."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.release()
        data = json.dumps(self.server.answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def foreign() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), Foreign) as server:
        server.asked = threading.Semaphore(0)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answer", [{}, {"name": "lm"}, {"samples": 0}, {"name": 1, "samples": "many"}])
def test_a_server_that_is_none_of_stabmons_is_named_once_and_asked_again(answer, foreign, local, monkeypatch):
    monkeypatch.setattr("stabmon.remote.sender.FIRST_PAUSE", 0.01)
    foreign.answer, said = answer, []
    address = f"http://127.0.0.1:{foreign.server_port}"
    sender = Sender(local.folder, Client(address, None), said.append)
    sender.start()
    for _ in range(3):
        assert foreign.asked.acquire(timeout=30)
    assert not sender.end(0.1)
    (text,) = said
    assert f"{address} does not answer as `stabmon serve` does" in text


def test_an_error_of_the_sender_itself_is_said_once_and_its_thread_goes_on(local, monkeypatch):
    monkeypatch.setattr("stabmon.remote.sender.FIRST_PAUSE", 0.01)
    asked, said = threading.Semaphore(0), []
    client = Client("http://127.0.0.1:1", None)

    def send(*_: object) -> None:
        asked.release()
        raise ZeroDivisionError("of no kind that is known")

    monkeypatch.setattr(client, "send", send)
    sender = Sender(local.folder, client, said.append)
    sender.start()
    for _ in range(3):
        assert asked.acquire(timeout=30)
    sender.end(0.1)
    assert said == ["ZeroDivisionError('of no kind that is known')"]


@pytest.mark.parametrize("token", ["токен", "two\nlines"])
def test_a_token_that_no_header_can_hold_is_refused_at_once_and_not_shown(token):
    with pytest.raises(ConfigError, match="token must be one line of ASCII letters") as refused:
        Client("http://127.0.0.1:1", token)
    assert token not in str(refused.value)
