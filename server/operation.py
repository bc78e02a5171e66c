"""Requests of those who run the service: ``/healthz`` and ``/metrics``, at the addresses that their tools expect."""

from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from stabmon import __version__
from stabmon.errors import StoreError
from stabmon.records import Record
from stabmon.server.problems import problems
from stabmon.server.prometheus import MEDIA_TYPE, Numbers
from stabmon.server.served import Served

router = APIRouter()

TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/plain": {"schema": {"type": "string"}}},
        "description": "Numbers in Prometheus' text format.",
    }
}


class Alive(Record):
    """The service answers, and its store can be read."""

    status: str = "ok"
    version: str = __version__


@router.get("/healthz", responses=problems(503))
def healthz(store: Served) -> Alive:
    """Say that the service answers and can read its store; needs no token, and says nothing of the runs."""
    try:
        store.check()
    except StoreError:  # its words name the store
        raise HTTPException(503, "the store cannot be read") from None
    return Alive()


@router.get("/metrics", response_class=Response, responses=TEXT | problems(409))
def metrics(request: Request) -> Response:
    """Count runs by process and health, open findings by rule, samples, and the time of requests, for Prometheus."""
    numbers = request.app.state.numbers
    assert isinstance(numbers, Numbers)
    return Response(numbers.text(), media_type=MEDIA_TYPE)
