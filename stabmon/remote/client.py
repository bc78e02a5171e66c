"""Requests to a server over one connection that is kept open; every failure is one of two kinds."""

import json
import ssl
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from stabmon.errors import ConfigError, StabmonError

TIMEOUT = 15.0
"""Seconds that one step of a request may take."""
_MOST = 1 << 20
"""Most bytes of an answer that are read."""
_BUSY = (408, 429, 500, 502, 503, 504)
"""Statuses that another attempt may change."""


class Unreachable(StabmonError):
    """The server did not answer, or is not able to at present."""


class Refused(StabmonError):
    """The server does not take the request."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{detail} (status {status})")
        self.status = status


class Client:
    """Writes to the server at ``address``, such as https://runs.example.org, with a token of scope write."""

    def __init__(self, address: str, token: str | None) -> None:
        self.address = checked(address)
        parts = urlsplit(self.address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
        self._prefix = f"{parts.path.rstrip('/')}/api/v1"
        secret = (token or "").strip()
        if not (secret.isascii() and secret.isprintable()):
            raise ConfigError("token must be one line of ASCII letters, as `stabmon token create` prints it")
        self._headers = {"Authorization": f"Bearer {secret}"} if secret else {}

    def send(self, method: str, path: str, data: bytes, kind: str = "application/json") -> dict[str, Any]:
        """Return the answer to a request; ``path`` is below ``/api/v1``.

        Raises:
            Unreachable: another attempt may succeed.
            Refused: the server says no.
        """
        headers = self._headers | {"Content-Type": kind, "Accept": "application/json"}
        try:
            self._connection.request(method, self._prefix + quote(path), data, headers)
            answer = self._connection.getresponse()
            status, body = answer.status, answer.read(_MOST)
            if answer.read(1):
                self.close()
        except (OSError, HTTPException, ssl.SSLError) as error:
            self.close()
            raise Unreachable(f"{self.address} does not answer: {error or type(error).__name__}") from error
        try:
            found = json.loads(body or b"{}")
        except ValueError:
            found = {"detail": f"an answer that is no JSON: {body[:80]!r}"}
        if status < 300 and isinstance(found, dict) and "detail" not in found:
            return found
        detail = str(found.get("detail", found)) if isinstance(found, dict) else str(found)
        if status in _BUSY:
            raise Unreachable(f"{self.address} cannot take the run at present: {detail} (status {status})")
        raise Refused(status, f"{self.address}: {detail}")

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._connection.close()


def checked(address: str) -> str:
    """Return ``address`` without a slash at its end.

    Raises:
        ConfigError: it is no address of a server.
    """
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.username
        usable = usable and (parts.port is None or parts.port > 0) and address.isprintable()
    except (ValueError, AttributeError, TypeError):
        usable = False
    if not usable:
        given = "one that may hold a password" if "@" in str(address) else repr(address)
        raise ConfigError(f"server must be an address such as http://host:8420, got {given}; the token is given apart")
    return address.rstrip("/")
