"""The application: the API under ``/api/v1``, the page at ``/``, and nothing that writes.

Of the runs nothing is kept between requests but the list of them (``fleet``), whose lines are read again where a file
has changed, so a run that appears, grows or is deleted is seen as it is.
"""

import asyncio
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from stabmon import __version__
from stabmon.errors import StoreError
from stabmon.records import Record
from stabmon.server import live, routes
from stabmon.server.auth import Logins, TokenGate, problem, usable
from stabmon.server.fleet import Fleet
from stabmon.server.headers import SecurityHeaders
from stabmon.server.requests import HeadIsGet

STATIC = Path(__file__).parent / "static"
API = "/api/v1"
ABOUT = """Read-only access to a folder of runs. Series travel as float32 (`application/vnd.stabmon.series`,
described in `stabmon.server.encoding`); everything else is JSON, with NaN and infinities
as "NaN", "Infinity" and "-Infinity".
An error is `{"detail": "..."}`: what was expected, what came and what to do."""


class Problem(Record):
    """An error: what was expected, what came and what to do."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The request carries no token, or a wrong one."},
    403: {"model": Problem, "description": "The request is for another host, and the server has no token."},
    404: {"model": Problem, "description": "There is no such run, metric, layer or rule."},
    409: {"model": Problem, "description": "The run cannot be read: foreign, damaged, or of a newer stabmon."},
    410: {"model": Problem, "description": "The run was deleted while it was read."},
    422: {"model": Problem, "description": "A parameter does not fit its declaration."},
}


def create_app(directory: Path, *, token: str | None = None) -> FastAPI:
    """Return the service over the runs in ``directory``; with ``token`` every request must carry it.

    ``app.state.logins.issue()`` returns a code that lets one browser in, by ``/?login=CODE``.

    The OpenAPI description is at ``/api/v1/openapi.json``. FastAPI's own documentation pages load scripts from
    elsewhere and are left out.
    """
    app = FastAPI(
        title="stabmon",
        version=__version__,
        description=ABOUT,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.directory = Path(directory)
    app.state.stopping = asyncio.Event()
    app.state.logins = Logins()
    app.state.fleet = Fleet(Path(directory))
    app.include_router(routes.router, prefix=API, responses=PROBLEMS)
    app.include_router(live.router, prefix=API, responses=PROBLEMS)
    app.add_api_route("/", index, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=4)
    app.add_middleware(HeadIsGet)
    app.add_middleware(TokenGate, token=None if token is None else usable(token), logins=app.state.logins)
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(StoreError, store_problem)
    app.add_exception_handler(HTTPException, http_problem)
    app.add_exception_handler(RequestValidationError, query_problem)
    return app


def index() -> FileResponse:
    """Send the page."""
    return FileResponse(STATIC / "index.html")


def store_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer for a run that exists and cannot be read: foreign, or written by a newer stabmon."""
    return problem(409, str(error))


def http_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer with an error that a route raised."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail))


def query_problem(request: Request, error: Exception) -> JSONResponse:
    """Answer a query that does not fit its declaration, in one sentence a parameter."""
    assert isinstance(error, RequestValidationError)
    problems = [
        f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}, got {item.get('input')!r}" for item in error.errors()
    ]
    return problem(422, "; ".join(problems))
