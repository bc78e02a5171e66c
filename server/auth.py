"""Access control: everyone on this machine may read, or everyone who knows the token.

Without a token only requests addressed to this machine by name are answered, so that a web page elsewhere cannot read
runs by pointing its own host name at 127.0.0.1; where other machines can reach the server, not even those. With a token
every request must carry it: as ``Authorization: Bearer``, or once as ``?token=``, which is exchanged for a cookie and
removed from the address. The address that is printed holds no token but ``?login=``, a code that is exchanged the same
way and works once.

The server's own token allows everything. Tokens that a store holds (``stabmon token create``) allow what their scope
says; runs are written, and deleted, by such tokens or the server's own alone, from this machine too.
"""

import hashlib
import hmac
import re
import secrets
import time
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from stabmon.errors import ConfigError, StoreError
from stabmon.server.problems import problem
from stabmon.server.run_address import ITSELF
from stabmon.store.tokens import Scope as Allowed
from stabmon.store.tokens import Tokens, digest

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
WEEK = 7 * 24 * 3600
STORED_COOKIE = "stabmon_token"
REMEMBERED = 2.0
"""Seconds after which a token that was revoked is refused, at the latest."""
MOST_REMEMBERED = 10_000
_RUN = "/api/v1/runs/[^/]+"
WRITING = (
    ("POST", "/api/v1/runs", Allowed.WRITE),
    ("POST", f"{_RUN}/samples", Allowed.WRITE),
    ("PUT", f"{_RUN}/(findings|failures|heartbeat)", Allowed.WRITE),
    ("DELETE", f"/api/v1/runs/{ITSELF}", Allowed.ADMIN),
)
"""Operations that need more than reading, by method and path; a test holds that no other route changes anything."""


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

    def __init__(
        self,
        app: ASGIApp,
        token: str | None = None,
        logins: Logins | None = None,
        tokens: Tokens | None = None,
        is_local: bool = True,
    ) -> None:
        """``is_local``: only this machine can reach the server, so without tokens for reading everyone may read."""
        self.app = app
        self.token, self.is_local = token, is_local
        self.logins = logins or Logins()
        self.stored = None if tokens is None else StoredTokens(tokens)
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        self.cookie, self.secret = f"stabmon_{digest[:8]}", digest[8:]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, redirect, or hand the request on."""
        refusal = await self.refuse(scope) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    async def refuse(self, scope: Scope) -> Response | None:
        """Return the response to a request that must not go on, or None."""
        needed = needed_for(scope["method"], scope["path"])
        if scope["path"] == "/healthz" or self.knows(scope):  # the first says nothing that a stranger may not know
            return None
        try:
            return await self.refuse_by_tokens(scope, needed)
        except StoreError:  # its words name the store, and who asks may be a stranger
            said = "the tokens cannot be read at present: on the server's machine `stabmon token list` says why"
            return problem(503, said, {"Retry-After": "5"})

    async def refuse_by_tokens(self, scope: Scope, needed: Allowed) -> Response | None:
        """Return the same for a request without the server's own token, by those of the store."""
        allowed = await self.stored.allows(_sent(scope)) if self.stored else None
        is_open = self.is_local and self.token is None and not (self.stored and await self.stored.let_read())
        if allowed is not None and allowed.allows(needed):
            return None
        if allowed is not None:
            return problem(403, f"this token may {allowed}, and this needs a token of scope {needed}")
        if needed is Allowed.READ and is_open:
            return _refuse_elsewhere(scope)
        return await self.let_in(scope, needed)

    async def let_in(self, scope: Scope, needed: Allowed) -> Response:
        """Exchange the token or code of an address for a cookie, or refuse."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for key, value in query if key == "token"), "")
        if self.token is not None and same(given, self.token):
            return self.exchange(scope["path"], query, self.cookie, self.secret)
        if self.stored and (allowed := await self.stored.allows(given)) and allowed.allows(Allowed.READ):
            return self.exchange(scope["path"], query, STORED_COOKIE, given)
        if scope["method"] == "GET" and any(key == "login" and self.logins.redeem(value) for key, value in query):
            return self.exchange(scope["path"], query, self.cookie, self.secret)
        if needed is not Allowed.READ:
            return problem(401, f"this needs a token of scope {needed}: make one with `stabmon token create`")
        return problem(
            401,
            "this server needs a token: open the address that `stabmon serve` printed, which works once, add "
            "?token= and the token to it, or send the token as a bearer header",
        )

    def knows(self, scope: Scope) -> bool:
        """Return whether the request carries the server's token or the cookie it was exchanged for."""
        if self.token is None:
            return False
        scheme, _, value = Headers(scope=scope).get("authorization", "").partition(" ")
        sent = value.strip().encode("latin-1")  # as it came: clients write letters beyond ASCII in either encoding
        encodings = [(self.token or "").encode(encoding, "replace") for encoding in ("utf-8", "latin-1")]
        if scheme.lower() == "bearer" and any(hmac.compare_digest(sent, one) for one in encodings):
            return True
        return same(Request(scope).cookies.get(self.cookie, ""), self.secret)

    def exchange(self, path: str, query: list[tuple[str, str]], cookie: str, secret: str) -> Response:
        """Return a redirect to the same page that sets the cookie and leaves token and code out of the address."""
        query = [pair for pair in query if pair[0] not in ("token", "login")]
        local = "/" + path.lstrip("/")
        response = RedirectResponse(local + ("?" + urlencode(query) if query else ""), status_code=303)
        response.set_cookie(cookie, secret, max_age=WEEK, httponly=True, samesite="strict")
        return response


class StoredTokens:
    """The tokens of a store, asked for at most once in ``REMEMBERED`` seconds each."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._known: dict[str, tuple[float, Allowed | None]] = {}
        self._read: tuple[float, bool] = (0.0, False)

    async def allows(self, secret: str) -> Allowed | None:
        """Return what ``secret`` allows, None where it is no token."""
        if not secret:
            return None
        key, now = digest(secret), time.monotonic()
        until, allowed = self._known.get(key, (0.0, None))
        if now > until:
            allowed = await run_in_threadpool(self._tokens.scope_of, secret)
            if len(self._known) > MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = (now + REMEMBERED, allowed)
        return allowed

    async def let_read(self) -> bool:
        """Return whether there are tokens for reading, so that nobody reads without one."""
        until, found = self._read
        if time.monotonic() > until:
            listed = await run_in_threadpool(self._tokens.listed)
            found = any(one.scope.allows(Allowed.READ) for one in listed)
            self._read = (time.monotonic() + REMEMBERED, found)
        return found


def needed_for(method: str, path: str) -> Allowed:
    """Return what a request needs; a path ends as for Starlette's routes, whose ``$`` lets one line break follow."""
    found = (allowed for one, pattern, allowed in WRITING if one == method and re.match(f"{pattern}$", path))
    return next(found, Allowed.READ)


def _sent(scope: Scope) -> str:
    """Return the token that a request carries, in its header or the cookie."""
    scheme, _, value = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return Request(scope).cookies.get(STORED_COOKIE, "")


def _refuse_elsewhere(scope: Scope) -> Response | None:
    name = host_name(Headers(scope=scope).get("host", ""))
    if name in LOOPBACK:
        return None
    return problem(403, f"this server answers to 127.0.0.1 and localhost only, not to {name!r}; start it with a token")


def same(given: str, expected: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())
