"""Webhooks: an HTTP request to an address of the user's when a finding opens or clears, or a run ends badly.

The server sends them and not the training, because only who is left can report a crash, because a secret address is
then in one place, and because a training never waits. One request holds all notices that wait, and there are at least
``EVERY`` seconds between two: many findings at once are one message. An address that does not answer is tried again,
each time after twice as long, while up to ``MOST`` notices wait; it is never printed whole, since it is a secret.
"""

import json
import threading
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from email.message import Message
from http.client import HTTPException
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from stabmon import __version__
from stabmon.errors import ConfigError
from stabmon.server.notices import Notice

EVERY = 5.0
"""Least seconds between two requests to one address."""
MOST = 1000
"""Most notices that wait for one address; more drop the oldest."""
LINES = 20
"""Most lines of a message."""
FIRST = 1.0
"""Seconds after which an address that failed is tried again."""
SLOWEST = 60.0
"""Longest pause in seconds before an address that failed is tried again, unless it asks for more."""
TIMEOUT = 10.0
"""Seconds in which an address must answer."""
ENDING = 0.5
"""Seconds that a last request gets when the server ends."""
SLACK = ("hooks.slack.com", "slack+")
"""Host, or beginning of an address, that wants a message in Slack's form."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would turn the request into a GET, and may lead anywhere."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Refuse."""


class Webhook:
    """One address and the notices that wait for it; ``start`` makes the thread that sends them."""

    def __init__(self, url: str, count: Callable[[str, int], None], announce: Callable[[str], None]) -> None:
        self.url, self.shown, self.is_slack = parsed(url)
        self._count, self._announce = count, announce
        self._waiting: deque[Notice] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._said = ""
        self._open = urllib.request.build_opener(_NoRedirect).open
        self._thread = threading.Thread(target=self._run, daemon=True, name="stabmon webhook")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, notices: Sequence[Notice]) -> None:
        """Let ``notices`` be sent; returns at once."""
        with self._changed:
            self._waiting.extend(notices)
            self._drop(len(self._waiting) - MOST)
            self._changed.notify()

    def close(self) -> None:
        """End, with one last try for what waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(ENDING)

    def _drop(self, number: int) -> None:
        for _ in range(number):
            self._waiting.popleft()
        if number > 0:
            self._count("dropped", number)

    def _run(self) -> None:
        while batch := self._next():
            self._deliver(batch)

    def _next(self) -> list[Notice]:
        """Wait, and return all notices that wait; none once the server ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            batch = [*self._waiting]
            self._waiting.clear()
            return batch

    def _deliver(self, batch: Sequence[Notice]) -> None:
        """Send ``batch``, again and again until it is done with; once more when the server ends."""
        pause = FIRST
        while True:
            last = self._stopping
            again = self._sent(batch, ENDING if last else TIMEOUT)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, EVERY if again is None else max(again, pause))
            if again is None or last:
                return
            pause = min(2 * pause, SLOWEST)

    def _sent(self, batch: Sequence[Notice], timeout: float) -> float | None:
        """Send ``batch``; return None once it is done with, or the seconds after which to try again."""
        try:
            with self._open(self._request(batch), timeout=timeout):
                self._count("sent", len(batch))
                self._said = ""
                return None
        except HTTPError as error:
            error.close()
            if error.code != 429 and error.code < 500:
                self._count("dropped", len(batch))
                self._say(f"answered {error.code}: {len(batch)} notices are dropped; check the address")
                return None
            self._say(f"answered {error.code}; it is tried again")
            return _seconds(error.headers.get("Retry-After"))
        except (URLError, OSError, HTTPException) as error:
            self._say(f"does not answer ({getattr(error, 'reason', error)}); it is tried again")
            return 0.0

    def _request(self, batch: Sequence[Notice]) -> urllib.request.Request:
        headers = {"Content-Type": "application/json", "User-Agent": f"stabmon/{__version__}"}
        return urllib.request.Request(self.url, body(batch, slack=self.is_slack), headers, method="POST")

    def _say(self, what: str) -> None:
        """Announce a failure, each kind once until a request succeeds."""
        if what != self._said:
            self._said = what
            self._announce(f"webhook {self.shown} {what}")


def parsed(url: str) -> tuple[str, str, bool]:
    """Return the address to send to, what of it may be shown, and whether it wants Slack's form.

    Raises:
        ConfigError: it is no address of a web server; the message does not hold it.
    """
    host, prefix = SLACK
    bare = url.strip().removeprefix(prefix)
    try:
        parts = urlsplit(bare)
        port = f":{parts.port}" if parts.port else ""
        (parts.hostname or "").encode("idna")
    except ValueError:
        parts, port = urlsplit(""), ""
    is_sendable = bare.isascii() and bare.isprintable() and " " not in bare  # http.client's own refusal shows it whole
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or not is_sendable:
        raise ConfigError(
            "a webhook is an address such as https://example.com/hook, or slack+https://example.com/hook for Slack's "
            "form, without user and password; what was given (not shown, it may be a secret) is none"
        )
    return bare, f"{parts.scheme}://{parts.hostname}{port}/…", url.startswith(prefix) or parts.hostname == host


def body(batch: Sequence[Notice], *, slack: bool) -> bytes:
    """Return ``{"text", "notices"}``, or Slack's ``{"text"}``, as JSON."""
    lines = [one.text for one in batch[:LINES]]
    lines += [f"and {len(batch) - LINES} more"] if len(batch) > LINES else []
    if slack:
        return json.dumps({"text": "\n".join(map(_escaped, lines))}).encode()
    return json.dumps({"text": "\n".join(lines), "notices": [one.model_dump(mode="json") for one in batch]}).encode()


def _escaped(text: str) -> str:
    """Return ``text`` as Slack shows it: a run's name makes no link and calls nobody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _seconds(asked: Any) -> float:
    """Return the seconds that ``Retry-After`` asks for, at most an hour, or 0."""
    return min(float(asked), 3600.0) if str(asked).isdecimal() else 0.0
