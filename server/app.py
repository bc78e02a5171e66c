"""The application: the API under ``/api/v1``, the page at ``/``, and what receives runs.

Of the runs nothing is kept between requests but the list of them (``fleet``), whose lines are read again where a file
has changed, so a run that appears, grows or is deleted is seen as it is.
"""

import asyncio
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from stabmon import __version__
from stabmon.server import comparison_routes, ingest, live, operation, reference, routes, series_routes
from stabmon.server.auth import Logins, TokenGate, usable
from stabmon.server.description import describe_api
from stabmon.server.fleet import Fleet
from stabmon.server.headers import SecurityHeaders
from stabmon.server.page import STATIC, Page, Parts, index
from stabmon.server.problems import EVERYWHERE, handle_problems, problems
from stabmon.server.prometheus import Numbers, Timed
from stabmon.server.receiver import Receiver
from stabmon.server.requests import HeadIsGet
from stabmon.store.interface import Store
from stabmon.store.run_folder import RunFolder

API = "/api/v1"
ABOUT = """Access to a folder of runs. A series comes packed as float32 (`application/vnd.stabmon.series`) or,
with `format=json`, as JSON; everything else is JSON, with NaN and infinities as "NaN", "Infinity" and "-Infinity".
A request that fails is answered with `{"detail": "..."}`: what was expected, what came and what to do.
HEAD is answered as GET is, without a body. An answer with an ETag is not sent again to a client that names it."""


def create_app(runs: Path | str | Store, *, token: str | None = None, is_local: bool = True) -> FastAPI:
    """Return the service over ``runs``, a folder or a team's store; with ``token`` every request must carry it.

    is_local: no other machine can reach it, so that without any token for reading everyone may read.

    ``app.state.logins.issue()`` returns a code that lets one browser in, by ``/?login=CODE``.

    The OpenAPI description is at ``/api/v1/openapi.json``, the same as a page at ``/api/v1/docs``; FastAPI's own pages
    load scripts from elsewhere and are left out.
    """
    app = FastAPI(
        title="stabmon",
        version=__version__,
        description=ABOUT,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    store: Store = RunFolder(runs) if isinstance(runs, Path | str) else runs
    fleet = Fleet(store)
    app.state.store, app.state.fleet = store, fleet
    app.state.stopping = asyncio.Event()
    app.state.logins = Logins()
    app.state.numbers = Numbers(fleet)
    app.state.receiver = Receiver(store)
    routers = (routes.router, series_routes.router, comparison_routes.router, live.router, ingest.router, routes.last)
    for router in routers:
        app.include_router(router, prefix=API, responses=problems(*EVERYWHERE))
    app.include_router(operation.router, responses=problems(*EVERYWHERE))
    app.state.page = Page()
    app.mount(app.state.page.root, Parts(directory=STATIC))
    app.add_api_route("/", index, include_in_schema=False)
    app.add_api_route(f"{API}/docs", documentation, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(GZipMiddleware, minimum_size=1024, compresslevel=4)
    app.add_middleware(HeadIsGet)
    app.add_middleware(
        TokenGate,
        token=None if token is None else usable(token),
        logins=app.state.logins,
        tokens=store.tokens,
        is_local=is_local,
    )
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Timed, numbers=app.state.numbers)
    handle_problems(app)
    describe_api(app, needs_token=token is not None)
    return app


def documentation(request: Request) -> HTMLResponse:
    """Send the documentation of the API."""
    return HTMLResponse(reference.page(request.app.openapi()))
