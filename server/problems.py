"""Errors in the one form of the whole API, ``{"detail": ...}``, and the statuses that the description declares."""

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from stabmon.errors import StoreError
from stabmon.names import legible
from stabmon.records import Record
from stabmon.server.headers import FIXED


class Problem(Record):
    """An error: what was expected, what came and what to do."""

    detail: str


_TEXTS = {
    401: "The request carries no token, or a wrong one.",
    403: "The request is for another host, and the server has no token; or its token does not allow it.",
    404: "There is no such run, metric, layer or rule.",
    408: "The request did not come whole in time.",
    409: "The run cannot be read: foreign, damaged, or of a newer stabmon; to be written: not open, or not so far.",
    410: "The run was deleted while it was read.",
    413: "The request is too large.",
    415: "The request does not say its form.",
    422: "A parameter does not fit its declaration.",
    500: "A mistake in stabmon; the server's log holds the traceback.",
    503: "The store cannot be read.",
}
EVERYWHERE = (401, 403, 500)
"""Statuses that every request of the API can have."""
OF_A_RUN = (404, 409, 410, 422)
"""Statuses of a request for one run."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the declaration of the errors that a route can answer with."""
    return {status: {"model": Problem, "description": _TEXTS[status]} for status in statuses}


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as a response."""
    return JSONResponse({"detail": legible(detail)}, status_code=status, headers=headers)


def handle_problems(app: FastAPI) -> None:
    """Let ``app`` answer every exception in this form."""
    app.add_exception_handler(StoreError, _of_store)
    app.add_exception_handler(HTTPException, _of_route)
    app.add_exception_handler(RequestValidationError, _of_query)
    app.add_exception_handler(Exception, _of_ours)


def _of_store(request: Request, error: Exception) -> JSONResponse:
    """Answer for a run that exists and cannot be read: foreign, or written by a newer stabmon."""
    return problem(409, str(error))


def _of_route(request: Request, error: Exception) -> JSONResponse:
    """Answer with an error that a route, or the router, raised."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the router names those of the first route of this path alone
        headers |= _allow(request)
    return problem(error.status_code, str(error.detail), headers)


def _allow(request: Request) -> dict[str, str]:
    """Return the header with the methods of all routes at the path of a request, if they are described."""
    paths = request.app.openapi()["paths"].items()
    here = (item for path, item in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), request.url.path))
    own = {method.upper() for item in here for method in item}
    return {"Allow": ", ".join(sorted(own))} if own else {}


def _of_query(request: Request, error: Exception) -> JSONResponse:
    """Answer a query that does not fit its declaration, in one sentence a parameter."""
    assert isinstance(error, RequestValidationError)
    found = [
        f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}, got {item.get('input')!r}" for item in error.errors()
    ]
    return problem(422, "; ".join(found))


def _of_ours(request: Request, error: Exception) -> JSONResponse:
    """Answer for our own mistake, which no middleware completes; the server logs the traceback."""
    return problem(500, f"a mistake in stabmon: {type(error).__name__}; the server's log holds the traceback", FIXED)
