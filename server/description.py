"""The OpenAPI description: what FastAPI derives from the routes, completed to what the service really answers.

FastAPI knows no HEAD, no 304, no access by token, and calls a float a number where it can be the word "NaN".
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from stabmon.server.auth import needed_for
from stabmon.store.tokens import Scope

Schema = dict[str, Any]
VERSION = "3.2.0"
"""The first version of OpenAPI that describes the events of a stream."""
NOT_FINITE = {"enum": ["NaN", "Infinity", "-Infinity"]}
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer TOKEN`."},
    "query": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "Answered by a redirect (303) that sets a cookie and leaves the token out of the address.",
    },
}
"""Ways to show the token; the address that `stabmon serve` prints has ``?login=``, which works once, as ``query``."""


def describe_api(app: FastAPI, *, needs_token: bool) -> None:
    """Let ``app.openapi()`` return the completed description, made once, when first asked for."""

    def openapi() -> Schema:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app, needs_token)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(app: FastAPI, needs_token: bool) -> Schema:
    found = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version=VERSION,
        description=app.description,
        routes=app.routes,
    )
    components = found.setdefault("components", {})
    _allow_words(components)
    components["securitySchemes"] = SCHEMES
    for path, item in found["paths"].items():
        for method, operation in [*item.items()]:
            reads = needed_for(method.upper(), path) is Scope.READ
            _complete(operation, open_to_all=path == "/healthz" or (reads and not needs_token))
        if "get" in item:
            item["head"] = _head(item["get"])
    return found


def _complete(operation: Schema, *, open_to_all: bool) -> None:
    operation["security"] = [] if open_to_all else [{name: []} for name in SCHEMES]
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    answers = operation["responses"]
    if open_to_all:
        answers.pop("401", None)
    if operation.pop("x-revalidated", False):
        named = {"name": "if-none-match", "in": "header", "required": False, "schema": {"type": "string"}}
        operation.setdefault("parameters", []).append(named | {"description": "ETags that the client has."})
        answers["200"]["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "Names this answer."}}
        answers["304"] = {"description": "The client has this answer."}
    operation["responses"] = dict(sorted(answers.items()))


def _without_null(schema: Schema) -> Schema:
    """Return the schema of a parameter that may be left out: an address or a header holds no null."""
    kinds: list[Schema] = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return kinds[0] | {part: text for part, text in schema.items() if part != "anyOf"}


def _head(get: Schema) -> Schema:
    answers = {
        status: {part: text for part, text in answer.items() if part != "content"}
        for status, answer in get["responses"].items()
    }
    own = {"operationId": f"{get['operationId']}_head", "summary": f"{get['summary']}: headers only"}
    return get | own | {"responses": answers}


def _allow_words(components: Schema) -> None:
    """Let every number of an answer be the word for NaN or an infinity, as ``Record`` writes them."""
    for part in [*_parts(components.get("schemas", {}))]:
        if part.get("type") == "number":
            del part["type"]
            part["anyOf"] = [{"type": "number"}, NOT_FINITE]


def _parts(tree: Any) -> Iterator[Schema]:
    match tree:
        case dict():
            yield tree
            for part in [*tree.values()]:
                yield from _parts(part)
        case list():
            for part in tree:
                yield from _parts(part)
