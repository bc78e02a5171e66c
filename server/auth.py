"""Access control: everyone on this machine may read, or everyone who knows the token.

Without a token only requests addressed to this machine by name are answered, so that a web page elsewhere cannot read
runs by pointing its own host name at 127.0.0.1. With a token every request must carry it: as ``Authorization: Bearer``,
or once as ``?token=``, which is exchanged for a cookie and removed from the address. The address that is printed holds
no token but ``?login=``, a code that is exchanged the same way and works once.
"""

import hashlib
import hmac
import secrets
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stabmon.errors import ConfigError
from stabmon.server.problems import problem

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WEEK = 7 * 24 * 3600


def host_name(host: str) -> str:
    """Return the name of a Host header without its port: ``[::1]:8765`` is ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def usable(token: str) -> str:
    """Return ``token`` without the white space around it, such as the end of its file's line.

    Raises:
        ConfigError: nothing is left, or it holds characters that a header cannot.
    """
    kept = token.strip()
    if not kept or not kept.isprintable():
        problem = "is empty" if not kept else "holds control characters"
        raise ConfigError(f"the token {problem}; take letters, digits and signs, such as `openssl rand -hex 16` prints")
    return kept


class Logins:
    """Codes that let one browser in each."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def issue(self) -> str:
        """Return a new code."""
        code = secrets.token_urlsafe(16)
        self._open.add(code)
        return code

    def redeem(self, code: str) -> bool:
        """Return whether ``code`` was issued and not redeemed before."""
        found = [one for one in self._open if same(code, one)]
        self._open.difference_update(found)
        return bool(found)


class TokenGate:
    """ASGI middleware that holds the rules of this module."""

    def __init__(self, app: ASGIApp, token: str | None = None, logins: Logins | None = None) -> None:
        self.app = app
        self.token = token
        self.logins = logins or Logins()
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        self.cookie, self.secret = f"stabmon_{digest[:8]}", digest[8:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, redirect, or hand the request on."""
        refusal = self.refuse(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def refuse(self, scope: Scope) -> Response | None:
        """Return the response to a request that must not go on, or None."""
        headers = Headers(scope=scope)
        if scope["path"] == "/healthz":  # says nothing that a stranger may not know
            return None
        if self.token is None:
            name = host_name(headers.get("host", ""))
            if name in LOOPBACK:
                return None
            return problem(
                403, f"this server answers to 127.0.0.1 and localhost only, not to {name!r}; start it with a token"
            )
        if self.knows(scope):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(key == "token" and same(value, self.token) for key, value in query):
            return self.exchange(scope["path"], query)
        if scope["method"] == "GET" and any(key == "login" and self.logins.redeem(value) for key, value in query):
            return self.exchange(scope["path"], query)
        return problem(
            401,
            "this server needs a token: open the address that `stabmon serve` printed, which works once, add "
            "?token= and the token to it, or send the token as a bearer header",
        )

    def knows(self, scope: Scope) -> bool:
        """Return whether the request carries the token or the cookie it was exchanged for."""
        scheme, _, value = Headers(scope=scope).get("authorization", "").partition(" ")
        sent = value.strip().encode("latin-1")  # as it came: clients write letters beyond ASCII in either encoding
        encodings = [(self.token or "").encode(encoding, "replace") for encoding in ("utf-8", "latin-1")]
        if scheme.lower() == "bearer" and any(hmac.compare_digest(sent, one) for one in encodings):
            return True
        return same(Request(scope).cookies.get(self.cookie, ""), self.secret)

    def exchange(self, path: str, query: list[tuple[str, str]]) -> Response:
        """Return a redirect to the same page that sets the cookie and leaves token and code out of the address."""
        query = [pair for pair in query if pair[0] not in ("token", "login")]
        local = "/" + path.lstrip("/")
        response = RedirectResponse(local + ("?" + urlencode(query) if query else ""), status_code=303)
        response.set_cookie(self.cookie, self.secret, max_age=WEEK, httponly=True, samesite="strict")
        return response


def same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
