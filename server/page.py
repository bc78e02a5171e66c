"""The page's HTML: the addresses of its parts, and what a browser would ask for first about the run that it shows.

The verdict is in the HTML, so that it can be read before any script has come, and so are the run's description, its
findings and their digest, as JSON in ``#first``. An address of a part holds the version of all of them: a browser
keeps a part for good, and asks for none that it has.
"""

import time
from hashlib import blake2b
from html import escape
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stabmon.errors import StoreError
from stabmon.findings import Digest, Finding
from stabmon.findings.digest import in_order, worst
from stabmon.records import Failure, Record
from stabmon.server.routes import RunDetail, detail_of, digest_of
from stabmon.server.served import Served, reading

STATIC = Path(__file__).parent / "static"
STANDALONE = ("boot.js", "worker.js")
"""Scripts that no module imports."""


class First(Record):
    """The first answers that the page needs about a run."""

    name: str
    now: float
    """Seconds since the epoch on this machine, as the ``Date`` of an answer."""
    detail: RunDetail
    findings: tuple[Finding, ...]
    digest: Digest
    failures: tuple[Failure, ...]


class Parts(StaticFiles):
    """The page's parts at an address of this version, which a browser need not ask for again."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Send a part."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "private, max-age=31536000, immutable"
        return response


class Page:
    """The HTML of the parts that lie in ``STATIC`` now."""

    def __init__(self) -> None:
        files = sorted(STATIC.iterdir())
        digest = blake2b(digest_size=6)
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        self.root = f"/static/{digest.hexdigest()}"
        modules = [file.name for file in files if file.suffix == ".js" and file.name not in STANDALONE]
        loaded = "".join(f'\n    <link rel="modulepreload" href="{self.root}/{name}">' for name in modules)
        text = (STATIC / "index.html").read_text(encoding="utf-8")
        self.head, self.body = text.replace("/static/", f"{self.root}/").split("    <!-- modules -->")
        self.head += loaded.lstrip("\n")

    def html(self, first: First | None = None) -> str:
        """Return the page; with what is known of its run, where that is given."""
        if first is None:
            return self.head + self.body
        data = first.model_dump_json().replace("<", "\\u003c")
        body = self.body.replace("<body>", '<body class="has-run">')
        body = body.replace(
            '<section id="verdict" class="verdict" aria-live="polite"></section>', _verdict(first.digest)
        )
        return self.head + body.replace(
            "  </body>", f'    <script type="application/json" id="first">{data}</script>\n  </body>'
        )


def _verdict(digest: Digest) -> str:
    """Return both answers as ``status.js`` draws them."""
    health, process = digest.health, digest.process
    assert process is not None
    level = worst(health.level, process.level)
    icon = '<svg class="icon" aria-hidden="true"></svg>'
    return (
        f'<section id="verdict" class="verdict {level}" aria-live="polite">'
        f'<div class="answer {health.level}">{icon}<h1>{escape(health.title)}</h1><p>{escape(health.text)}</p></div>'
        f'<div class="answer process {process.level}">{icon}'
        f"<b>{escape(process.title)}</b><p>{escape(process.text)}</p></div></section>"
    )


def index(request: Request, store: Served) -> HTMLResponse:
    """Send the page; a run that cannot be read is left to the page, which says why."""
    page = request.app.state.page
    assert isinstance(page, Page)
    name = request.query_params.get("run")
    if not name:
        return HTMLResponse(page.html())
    try:
        with reading(store, name) as reader:
            detail = detail_of(reader, name)
            found = in_order(reader.findings())
            digest = digest_of(reader, found, detail.heartbeat)
            failures = reader.failures()
    except (HTTPException, StoreError):
        return HTMLResponse(page.html())
    first = First(name=name, now=time.time(), detail=detail, findings=found, digest=digest, failures=failures)
    return HTMLResponse(page.html(first), headers={"Cache-Control": "no-store"})
