"""Webhooks against a real HTTP server of this machine."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stabmon.errors import ConfigError
from stabmon.server import webhooks
from stabmon.server.fleet import Fleet
from stabmon.server.notices import Notice
from stabmon.server.notifier import Notifier
from stabmon.server.webhooks import Webhook, body, parsed
from stabmon.store.run_folder import RunFolder


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent; answers with the statuses of ``answers`` first, then with 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict] = []
        self.answers: list[int] = []
        self.hold = threading.Event()
        self.hold.set()
        self.url = f"http://127.0.0.1:{self.server_port}/secret/key?token=hidden"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.hold.wait(60)
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.got.append(sent)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def receiver():
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


class Sending:
    """A webhook that is started, with what it counted and said."""

    def __init__(self, url: str) -> None:
        self.counted: Counter[str] = Counter()
        self.said: list[str] = []
        self.hook = Webhook(url, lambda what, n: self.counted.update({what: n}), self.said.append)
        self.hook.start()


@pytest.fixture
def send_to(monkeypatch):
    """Start webhooks without pauses between requests; they end with the test."""
    monkeypatch.setattr(webhooks, "EVERY", 0.0)
    monkeypatch.setattr(webhooks, "FIRST", 0.01)
    started: list[Sending] = []

    def start(url: str) -> Sending:
        started.append(Sending(url))
        return started[-1]

    yield start
    for one in started:
        one.hook.close()


def notice(text: str) -> Notice:
    return Notice(kind="opened", run="naive", time=1.0, text=text, code="ATT001", severity="error")


def test_a_notice_arrives_as_json_with_its_parts(receiver, send_to, wait_until):
    sending = send_to(receiver.url)
    sending.hook.put([notice("naive: it opened")])
    wait_until(lambda: receiver.got)
    assert receiver.got[0]["text"] == "naive: it opened"
    assert receiver.got[0]["notices"][0]["code"] == "ATT001"
    wait_until(lambda: sending.counted == {"sent": 1})
    assert sending.said == []


def test_slack_gets_text_alone_in_which_a_run_s_name_calls_nobody():
    sent = json.loads(body([notice("<!channel> & co")], slack=True))
    assert sent == {"text": "&lt;!channel&gt; &amp; co"}
    many = json.loads(body([notice(f"line {number}") for number in range(30)], slack=True))["text"].split("\n")
    assert many[-1] == "and 10 more"


def test_an_address_that_fails_is_tried_again_and_nothing_is_lost_or_doubled(receiver, send_to, wait_until):
    receiver.answers = [503, 500, 429]
    sending = send_to(receiver.url)
    sending.hook.put([notice("first")])
    wait_until(lambda: not receiver.answers)
    sending.hook.put([notice("second")])
    wait_until(lambda: sending.counted == {"sent": 2})
    texts = [one["text"] for sent in receiver.got for one in sent["notices"]]
    assert texts == ["first", "second"]


def test_what_waits_is_sent_together(receiver, send_to, wait_until):
    receiver.hold.clear()
    sending = send_to(receiver.url)
    sending.hook.put([notice("0")])
    wait_until(lambda: not sending.hook._waiting)
    for number in range(1, 6):
        sending.hook.put([notice(str(number))])
    receiver.hold.set()
    wait_until(lambda: sending.counted == {"sent": 6})
    assert [len(sent["notices"]) for sent in receiver.got] == [1, 5]


@pytest.mark.parametrize("status", [302, 404])
def test_an_address_that_refuses_is_said_once_without_its_secret(status, receiver, send_to, wait_until):
    receiver.answers = [status, status]
    sending = send_to(receiver.url)
    for number in (1, 2):
        sending.hook.put([notice("gone")])
        wait_until(lambda number=number: sending.counted == {"dropped": number})
    (said,) = sending.said
    assert f"webhook http://127.0.0.1:{receiver.server_port}/… answered {status}" in said
    assert "secret" not in said
    assert receiver.got == []


def test_an_address_that_never_answers_keeps_the_newest_notices_and_holds_nobody_up(
    receiver, send_to, wait_until, monkeypatch
):
    monkeypatch.setattr(webhooks, "MOST", 3)
    receiver.hold.clear()
    sending = send_to(receiver.url)
    sending.hook.put([notice("in flight")])
    wait_until(lambda: not sending.hook._waiting)
    sending.hook.put([notice(str(number)) for number in range(5)])
    assert [one.text for one in sending.hook._waiting] == ["2", "3", "4"]
    assert sending.counted == {"dropped": 2}
    sending.hook.close()
    assert sending.hook._thread.is_alive(), "the end of the server does not wait for it"


def test_a_closed_port_is_said_with_its_reason(send_to, receiver, wait_until):
    receiver.server_close()
    sending = send_to(receiver.url)
    sending.hook.put([notice("lost")])
    wait_until(lambda: sending.said)
    assert "does not answer" in sending.said[0]
    assert "secret" not in sending.said[0]


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://host/secret", "https://", "secret", "http://[secret", "http://höst/secret", ""),
        *("https://user:secret@host/hook", "https://host/a\tsecret", "https://a..b/secret"),
    ],
)
def test_what_is_no_address_is_refused_without_showing_it(url):
    with pytest.raises(ConfigError, match="a webhook is an address such as https") as caught:
        parsed(url)
    assert "secret" not in str(caught.value).replace("may be a secret", "")


def test_slacks_form_is_chosen_by_the_host_or_asked_for():
    assert parsed("https://hooks.slack.com/services/T/B/x") == (
        "https://hooks.slack.com/services/T/B/x",
        "https://hooks.slack.com/…",
        True,
    )
    assert parsed("slack+http://chat.example:8065/hooks/x") == (
        "http://chat.example:8065/hooks/x",
        "http://chat.example:8065/…",
        True,
    )
    assert parsed("https://example.com/x")[2] is False


def test_a_finding_that_opens_while_the_server_runs_arrives(
    runs, receiver, send_to, wait_until, monkeypatch, make_findings
):
    monkeypatch.setattr("stabmon.server.notifier.LOOK", 0.01)
    monkeypatch.setattr("stabmon.server.fleet.EVERY", 0.0)
    writer = runs.start("naive", naive=True)
    runs.write(writer, range(3), naive=True)
    sending = Webhook(receiver.url, lambda what, n: None, print)
    fleet = Fleet(RunFolder(runs.directory))
    looks = []
    monkeypatch.setattr(fleet, "now", lambda now=fleet.now: looks.append(1) or now())
    with Notifier(fleet, [sending], print):
        wait_until(lambda: len(looks) > 2)
        writer.findings(make_findings()[:4])
        wait_until(lambda: receiver.got)
    assert receiver.got[0]["notices"][0]["keys"][0] == "ATT001:layers.0:0"
