"""Who may read: everyone on this machine, or everyone who knows the token.

Without a token only requests addressed to this machine by name are answered, so that a web page elsewhere cannot read
runs by pointing its own host name at 127.0.0.1. With a token every request must carry it: as ``Authorization: Bearer``,
or once as ``?token=``, which is exchanged for a cookie and removed from the address.
"""

import hashlib
import hmac
from http.cookies import SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WEEK = 7 * 24 * 3600


def host_name(host: str) -> str:
    """Return the name of a Host header without its port: ``[::1]:8765`` is ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


class TokenGate:
    """ASGI middleware that holds the rules of this module."""

    def __init__(self, app: ASGIApp, token: str | None = None) -> None:
        self.app = app
        self.token = token
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        self.cookie, self.secret = f"stabmon_{digest[:8]}", digest[8:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, redirect, or hand the request on."""
        refusal = self.refuse(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def refuse(self, scope: Scope) -> Response | None:
        """Return the response to a request that must not go on, or None."""
        headers = Headers(scope=scope)
        if self.token is None:
            name = host_name(headers.get("host", ""))
            if name in LOOPBACK:
                return None
            return problem(
                403, f"this server answers to 127.0.0.1 and localhost only, not to {name!r}; start it with a token"
            )
        if self.knows(headers):
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if any(key == "token" and same(value, self.token) for key, value in query):
            return self.exchange(scope["path"], [pair for pair in query if pair[0] != "token"])
        return problem(
            401,
            "this server needs a token: open the address that `stabmon serve` printed, or send it as a bearer header",
        )

    def knows(self, headers: Headers) -> bool:
        """Whether the request carries the token or the cookie it was exchanged for."""
        scheme, _, value = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and same(value.strip(), self.token or ""):
            return True
        cookies = SimpleCookie(headers.get("cookie", ""))
        return self.cookie in cookies and same(cookies[self.cookie].value, self.secret)

    def exchange(self, path: str, query: list[tuple[str, str]]) -> Response:
        """Return a redirect to the same page that sets the cookie and leaves the token out of the address."""
        local = "/" + path.lstrip("/")
        response = RedirectResponse(local + ("?" + urlencode(query) if query else ""), status_code=303)
        response.set_cookie(self.cookie, self.secret, max_age=WEEK, httponly=True, samesite="strict")
        return response


def same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def problem(status: int, detail: str) -> JSONResponse:
    """Return an error in the form of the whole API: ``{"detail": ...}``."""
    return JSONResponse({"detail": detail}, status_code=status)
