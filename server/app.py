"""The application: the API under ``/api/v1``, the page at ``/``, and nothing that writes.

Nothing is kept between requests but the folder's path, so a run that appears, grows or is deleted is seen as it is.
"""

import asyncio
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from stabmon import __version__
from stabmon.errors import StoreError
from stabmon.server import live, routes
from stabmon.server.auth import Logins, TokenGate, problem, usable
from stabmon.server.headers import SecurityHeaders

STATIC = Path(__file__).parent / "static"
API = "/api/v1"
ABOUT = """Read-only access to a folder of runs. Series travel as float32 (`application/vnd.stabmon.series`,
described in `stabmon.server.encoding`); everything else is JSON, with NaN and infinities
as "NaN", "Infinity" and "-Infinity".
An error is `{"detail": "..."}`: what was expected, what came and what to do."""


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
    app.include_router(routes.router, prefix=API)
    app.include_router(live.router, prefix=API)
    app.add_api_route("/", index, include_in_schema=False)
    app.add_api_route("/static/plotly.min.js", plotly, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=4)
    app.add_middleware(TokenGate, token=None if token is None else usable(token), logins=app.state.logins)
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(StoreError, store_problem)
    app.add_exception_handler(HTTPException, http_problem)
    app.add_exception_handler(RequestValidationError, query_problem)
    return app


def index() -> FileResponse:
    """Send the page."""
    return FileResponse(STATIC / "index.html")


async def plotly(request: Request) -> Response:
    """Send Plotly's browser bundle, from its Python wheel; a browser that has it already gets a 304."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        raise HTTPException(500, "the page draws with the plotly package, which is not installed: pip install plotly")
    bundle = StaticFiles(directory=Path(spec.origin).parent / "package_data")
    return await bundle.get_response("plotly.min.js", request.scope)


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
