"""Rules of HTTP for all requests: HEAD is GET without a body; an answer that the client has is not sent again."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadIsGet:
    """ASGI middleware that answers HEAD with the status and headers of GET; a stream ends at once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on as GET, and send no body."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            return await self.app(scope, receive, send)

        async def headers_alone(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            elif message.get("more_body"):
                raise _Enough

        with suppress(_Enough, ClientDisconnect):
            await self.app(dict(scope, method="GET"), receive, headers_alone)
        await send({"type": "http.response.body"})


class _Enough(OSError):
    """The headers are sent; what makes the body need not go on. ASGI reports a client that left by an OSError."""


class Revalidated(APIRoute):
    """A route whose answers have an ETag; a client that names it gets a 304, which its description says."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        extra = (options.pop("openapi_extra", None) or {}) | {"x-revalidated": True}
        super().__init__(path, endpoint, openapi_extra=extra, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's handler, completed."""
        handle = super().get_route_handler()

        async def complete(request: Request) -> Response:
            response = await handle(request)
            if response.status_code != 200:
                return response
            tag = response.headers.setdefault("etag", f'W/"{blake2b(response.body, digest_size=12).hexdigest()}"')
            return not_modified(tag) if is_known(request, tag) else response

        return complete


def is_known(request: Request, tag: str) -> bool:
    """Return whether the client names the answer ``tag``, alone, in a list, or by ``*``."""
    named = request.headers.get("if-none-match", "")
    return any(one.strip() == "*" or _bare(one) == _bare(tag) for one in named.split(","))


def _bare(tag: str) -> str:
    return tag.strip().removeprefix("W/")


def not_modified(tag: str) -> Response:
    """Return the answer to a client that has it already."""
    return Response(status_code=304, headers={"ETag": tag})
