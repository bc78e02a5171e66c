"""Receiving runs over HTTP, from trainings elsewhere: what is sent twice is stored once, whatever is killed when.

A sender opens its run, and sends batches of samples that say which sample of the run they begin with; the answer is how
many are stored. After any failure it opens the run again and goes on from there.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from stabmon.errors import ArgumentError, StoreError
from stabmon.findings import Finding
from stabmon.names import check_run_name
from stabmon.records import Failure, Heartbeat, Record, RunInfo, RunState
from stabmon.series import Layout
from stabmon.server.problems import problems
from stabmon.server.receiver import Receiver
from stabmon.server.run_address import RUN
from stabmon.server.served import Served, absent
from stabmon.store import RunWriter
from stabmon.store.integrity import layout_fault
from stabmon.store.place import RunGone
from stabmon.store.wire import MEDIA_TYPE, unpack
from stabmon.store.writer import Gap

router = APIRouter()

LARGEST = 1 << 25
"""Most bytes of a request; a sender keeps to an eighth of it."""
PATIENCE = 30.0
"""Seconds in which the body of a request must come."""
MOST_LINES = 1000
"""Most findings, or failures, of a request."""
RECEIVING = (401, 403, 404, 408, 409, 410, 413, 415, 422, 503)
_STATES = (RunState.RUNNING, RunState.FINISHED, RunState.FAILED, RunState.CRASHED)
_Form = TypeVar("_Form")


class Opening(Record):
    """Description of a run."""

    info: RunInfo
    layout: Layout


class Opened(Record):
    """The run as it is stored here."""

    name: str
    """Another one than asked for where there is a run of that name which is not the same."""
    samples: int
    """Samples that are stored: the number of the next one."""


class StoredSamples(Record):
    """Amount of the run that is stored now."""

    samples: int
    """Samples that are stored: the number of the next one."""


class Beat(Record):
    """The state of a run."""

    heartbeat: Heartbeat
    age: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    """Seconds since the heartbeat's time, by the sender's clock; the server's own clock is not the same."""


async def body(request: Request) -> bytes:
    """Read the body of a request, but no more and no longer than is allowed.

    Raises:
        HTTPException: 413, it is too large; 408, it did not come in time.
    """
    parts, size = [], 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                size += len(part)
                if size > LARGEST:
                    raise HTTPException(
                        413, f"a request may have {LARGEST} bytes, this one has more: send less at once"
                    )
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, f"the request did not come whole within {PATIENCE:.0f} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client left") from None
    return b"".join(parts)


Body = Annotated[bytes, Depends(body)]


def form(kind: str) -> Callable[[Request], None]:
    """Return a check that a request says its form, which a web page elsewhere cannot do without being asked first."""

    def check(request: Request) -> None:
        sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if sent != kind:
            raise HTTPException(415, f"the content type must be {kind}, got {sent or 'none'}")

    return check


def described(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a request's body, which is read by hand so that its size is limited."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


def parsed(form: type[_Form] | TypeAdapter[_Form], data: bytes) -> _Form:
    """Return the record in a request.

    Raises:
        HTTPException: 422, it is another one.
    """
    try:
        return (form if isinstance(form, TypeAdapter) else TypeAdapter(form)).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise HTTPException(422, f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}") from None


def columns_of(form: type[_Form] | TypeAdapter[_Form], data: bytes) -> _Form:
    """Return the record in a request, whose whole numbers are columns of the store.

    Raises:
        HTTPException: 422, it is another one, or a number has more than 64 bits.
    """
    found = parsed(form, data)
    if _is_beyond(to_jsonable_python(found, inf_nan_mode="strings")):
        raise HTTPException(422, "whole numbers must be below 2^63, as those of a step are")
    return found


def _is_beyond(tree: object) -> bool:
    if isinstance(tree, dict | list):
        return any(map(_is_beyond, tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, int) and not -(2**63) <= tree < 2**63


@contextmanager
def receiving() -> Iterator[None]:
    """Answer what goes wrong: 410 where the run is gone, 409 where samples are missing, 503 where nothing is stored."""
    try:
        yield
    except RunGone as error:
        raise HTTPException(410, str(error)) from error
    except Gap as error:
        raise HTTPException(409, str(error)) from error
    except StoreError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error


def _receiver(request: Request) -> Receiver:
    found: Receiver = request.app.state.receiver
    return found


@contextmanager
def writer_of(request: Request, store: Served, name: str) -> Iterator[RunWriter]:
    """Yield the writer of a run that a sender has opened.

    Raises:
        HTTPException: 404, no such run; 409, it is not open here; and what ``receiving`` says.
    """
    with receiving(), _receiver(request).writing(name) as writer:
        if writer is None and not store.has(name):
            raise HTTPException(404, absent(store, name))
        if writer is None:
            raise HTTPException(409, f"the run {name!r} is not open here: open it by POST /api/v1/runs, and go on")
        yield writer


@router.post(
    "/runs",
    dependencies=[Depends(form("application/json"))],
    responses=problems(*RECEIVING),
    openapi_extra=described("application/json", {"type": "object"}),
)
def open_run(request: Request, data: Body) -> Opened:
    """Open a run to be written, or make it; the same run again goes on where it stands."""
    opening = parsed(Opening, data)
    fault = layout_fault(opening.layout) or _unfit(opening.layout)
    try:
        check_run_name(opening.info.name)
    except ArgumentError as error:
        fault = str(error)
    if fault is not None:
        raise HTTPException(422, fault)
    with receiving():
        name, samples = _receiver(request).open(opening.info, opening.layout)
    return Opened(name=name, samples=samples)


def _unfit(layout: Layout) -> str | None:
    long = [c.metric for c in layout.columns if not 0 < len(c.metric) <= 120 or "\0" in f"{c.metric}{c.layer}"]
    return f"a metric's name must have 1 to 120 characters, got {long[0]!r:.200}" if long else None


@router.post(
    "/runs/{name}/samples",
    dependencies=[Depends(form(MEDIA_TYPE))],
    responses=problems(*RECEIVING),
    openapi_extra=described(MEDIA_TYPE, {"type": "string", "format": "binary"}),
)
def append(request: Request, store: Served, name: str, data: Body) -> StoredSamples:
    """Append samples, in the form of ``stabmon.store.wire``; those that are stored already are left out."""
    with writer_of(request, store, name) as writer:
        try:
            batch = unpack(data, writer.layout.width)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return StoredSamples(samples=writer.append(batch.rows, batch.first, batch.later))


@router.put(
    "/runs/{name}/findings",
    dependencies=[Depends(form("application/json"))],
    responses=problems(*RECEIVING),
    openapi_extra=described("application/json", {"type": "array", "items": {"type": "object"}}),
)
def put_findings(request: Request, store: Served, name: str, data: Body) -> StoredSamples:
    """Write findings, each over the one of the same code, layer and step of opening."""
    found = columns_of(TypeAdapter(Annotated[tuple[Finding, ...], Field(max_length=MOST_LINES)]), data)
    with writer_of(request, store, name) as writer:
        writer.findings(found)
        return StoredSamples(samples=writer.samples)


@router.put(
    "/runs/{name}/failures",
    dependencies=[Depends(form("application/json"))],
    responses=problems(*RECEIVING),
    openapi_extra=described("application/json", {"type": "array", "items": {"type": "object"}}),
)
def put_failures(request: Request, store: Served, name: str, data: Body) -> StoredSamples:
    """Write what is missing in a run and why, each over the one of the same subject, reason and first step."""
    found = columns_of(TypeAdapter(Annotated[tuple[Failure, ...], Field(max_length=MOST_LINES)]), data)
    with writer_of(request, store, name) as writer:
        writer.failures(found)
        return StoredSamples(samples=writer.samples)


@router.put(
    "/runs/{name}/heartbeat",
    dependencies=[Depends(form("application/json"))],
    responses=problems(*RECEIVING),
    openapi_extra=described("application/json", {"type": "object"}),
)
def put_heartbeat(request: Request, store: Served, name: str, data: Body) -> StoredSamples:
    """Write the state of a run: running, finished, failed or crashed."""
    beat = columns_of(Beat, data)
    if beat.heartbeat.state not in _STATES:
        raise HTTPException(422, f"the state must be one of {', '.join(_STATES)}, got {beat.heartbeat.state}")
    with writer_of(request, store, name) as writer:
        writer.heartbeat(beat.heartbeat.model_copy(update={"time": time.time() - beat.age}))
        samples = writer.samples
    if beat.heartbeat.state is not RunState.RUNNING:
        _receiver(request).forget(name)
    return StoredSamples(samples=samples)


@router.delete(RUN, status_code=204, responses=problems(401, 403, 404, 422, 503))
async def delete(request: Request, store: Served, name: str) -> None:
    """Delete a run for good, and of its folder nothing else; needs a token of scope admin."""
    if not await run_in_threadpool(store.has, name):
        raise HTTPException(404, absent(store, name))
    with receiving():
        await run_in_threadpool(_receiver(request).forget, name)
        await run_in_threadpool(store.delete, name)
