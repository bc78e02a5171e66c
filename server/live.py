"""Live updates as Server-Sent Events: of one run, or of several in one stream, since browsers allow few connections.

Events, each with JSON data: ``points`` (packed series in base64, new samples only), ``status`` (the heartbeat and its
age), ``findings`` (all of them, when they changed), ``digest`` (their order and words, when they or the run's state
changed), ``failures`` (what is missing and why, when that changed), ``end`` (the run has ended: do not come back),
``gone`` (deleted). The id of an event of one run is the cursor from which its stream can go on; in a stream of several
the data is ``{"follow": ..., "cursor": ..., "data": ...}``.
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import Annotated, NamedTuple

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from stabmon.errors import StoreError
from stabmon.findings.digest import in_order
from stabmon.names import legible
from stabmon.records import Failure, RunState
from stabmon.server.encoding import pack
from stabmon.server.event_schema import numbered, stream_of
from stabmon.server.problems import OF_A_RUN, problems
from stabmon.server.routes import digest_of
from stabmon.server.selection import Selection
from stabmon.server.series_routes import LARGEST
from stabmon.server.served import Served, absent, reading
from stabmon.store import New, RunReader
from stabmon.store.runs import is_below as named

router = APIRouter()

POLL = 0.5
"""Seconds between two looks at the run."""
BATCH = 1000
"""Most samples that one look sends."""
KEEP_ALIVE = 5.0
"""Seconds without an event after which an open stream sends a comment, so that a lost client is noticed."""


MOST = 64
"""Most runs that one stream follows."""


class Event(NamedTuple):
    """One event of one run; ``cursor`` is where a client that lost the stream goes on."""

    kind: str
    data: str
    cursor: int

    def alone(self) -> str:
        """Frame the event for a stream of one run."""
        return f"id: {self.cursor}\nevent: {self.kind}\ndata: {self.data}\n\n"

    def of(self, follow: int) -> str:
        """Frame the event for a stream of several runs, in which its run is the one numbered ``follow``."""
        data = f'{{"follow":{follow},"cursor":{self.cursor},"data":{self.data}}}'
        return f"event: {self.kind}\ndata: {data}\n\n"


class Follower:
    """The part of one run that one client has been sent. Opens the run at its first look; ``close`` closes it."""

    def __init__(self, opened: Callable[[], RunReader], selections: Sequence[Selection], cursor: int) -> None:
        self._opened = opened
        self.selections, self.cursor = selections, cursor
        self.reader: RunReader | None = None
        self.status = self.findings = self.digest = ""
        self.failures: tuple[Failure, ...] = ()
        self.ended = False

    def look(self) -> list[Event]:
        """Return the events since the last look."""
        try:
            self.reader = self.reader or self.open()
            return self.changes(self.reader)
        except (StoreError, HTTPException) as error:
            self.ended = True
            detail = error.detail if isinstance(error, HTTPException) else str(error)
            return [self.event("gone", json.dumps({"detail": legible(detail)}))]

    def open(self) -> RunReader:
        """Open the run and check that it has what is to be sent.

        Raises:
            StoreError: it cannot be read.
            HTTPException: 404, it does not record it.
        """
        reader = self._opened()
        try:
            for selection in self.selections:
                selection.check(reader.layout)
        except HTTPException:
            reader.close()
            raise
        return reader

    def close(self) -> None:
        """Close the run."""
        if self.reader is not None:
            self.reader.close()

    def changes(self, reader: RunReader) -> list[Event]:
        """Return the events that ``reader`` has and this client does not."""
        beat = reader.heartbeat()  # first: once the run has ended, nothing follows what is read below
        new = reader.after(self.cursor, limit=BATCH)
        events = [self.points(reader, part) for part in without_rewinds(new)]
        self.cursor = new.cursor
        ordered = in_order(reader.findings())
        found = "[" + ",".join(one.model_dump_json() for one in ordered) + "]"
        words = digest_of(reader, ordered, beat).model_dump_json()
        status = beat.model_dump_json()
        if found != self.findings:
            events.append(self.event("findings", found))
        if words != self.digest:
            events.append(self.event("digest", words))
        missing = reader.failures()
        if missing != self.failures:
            self.failures = missing
            events.append(self.event("failures", "[" + ",".join(one.model_dump_json() for one in missing) + "]"))
        if status != self.status:
            age = max(0.0, time.time() - beat.time)
            events.append(self.event("status", f'{{"heartbeat":{status},"age":{age:.3f}}}'))
        self.findings, self.digest, self.status = found, words, status
        self.ended = beat.state in (RunState.FINISHED, RunState.FAILED) and len(new.steps) < BATCH
        if not self.ended:
            return events
        since = new.part(len(new.steps), len(new.steps) + 1)
        return [*events, *([self.points(reader, since)] if since.logged else []), self.event("end", "{}")]

    def points(self, reader: RunReader, new: New) -> Event:
        """Return the event for new samples; its cursor is the one after them."""
        self.cursor = new.cursor
        packed = {str(one): pack(one.pick(reader.layout, new)) for one in self.selections}
        return self.event("points", json.dumps({name: b64encode(data).decode() for name, data in packed.items()}))

    def event(self, kind: str, data: str) -> Event:
        """Return one event at the present cursor."""
        return Event(kind, data, self.cursor)


def without_rewinds(new: New) -> Iterator[New]:
    """Cut samples where a resumed run went back, so that the steps of each part ascend."""
    cuts = (np.flatnonzero(np.diff(new.steps) <= 0) + 1).tolist()
    for start, end in pairwise([0, *cuts, len(new.steps)]):
        if end > start:
            yield new.part(start, end)


async def stream(
    look: Callable[[], tuple[list[str], bool]], close: Callable[[], None], stopping: asyncio.Event
) -> AsyncIterator[str]:
    """Yield the events of each look until it says that they were the last, the server stops, or the client leaves."""
    sent, ended = time.monotonic(), False
    try:
        yield "retry: 1000\n\n"
        while not (stopping.is_set() or ended):
            events, ended = await to_thread.run_sync(lambda: ([], True) if stopping.is_set() else look())
            if events or time.monotonic() - sent > KEEP_ALIVE:
                sent = time.monotonic()
                yield "".join(events) or ": still here\n\n"
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), POLL)
    finally:
        close()


def of_one(follow: Follower, stopping: asyncio.Event) -> AsyncIterator[str]:
    """Stream one run."""
    return stream(lambda: ([event.alone() for event in follow.look()], follow.ended), follow.close, stopping)


def of_several(followers: Sequence[Follower], stopping: asyncio.Event) -> AsyncIterator[str]:
    """Stream several runs."""

    def look() -> tuple[list[str], bool]:
        living = [(number, one) for number, one in enumerate(followers) if not one.ended]
        return [event.of(number) for number, one in living for event in one.look()], all(f.ended for f in followers)

    def close() -> None:
        for one in followers:
            one.close()

    return stream(look, close, stopping)


def streamed(events: AsyncIterator[str]) -> StreamingResponse:
    """Return the response that sends ``events``."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


@router.get(
    "/runs/{name:run}/live", response_class=StreamingResponse, responses=problems(*OF_A_RUN) | stream_of(__doc__)
)
def live(
    request: Request,
    store: Served,
    name: str,
    series: Annotated[str, Query(description="What to send, with commas: `loss,row_mass,row_mass@layers.3`.")] = "loss",
    cursor: Annotated[int, Query(ge=0, le=LARGEST, description="Where to begin: `cursor` of a series.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=LARGEST, description="Where a lost stream goes on; wins over `cursor`.")
    ] = None,
) -> StreamingResponse:
    """Follow a run: points, status, findings, as Server-Sent Events."""
    selections = [Selection.parse(part) for part in series.split(",") if part]
    with reading(store, name) as reader:
        for selection in selections:
            selection.check(reader.layout)
    follow = Follower(partial(store.open, name), selections, cursor if last_event_id is None else last_event_id)
    return streamed(of_one(follow, request.app.state.stopping))


@router.get("/live", response_class=StreamingResponse, responses=problems(404, 422) | stream_of(__doc__, numbered))
def several(
    request: Request,
    store: Served,
    follow: Annotated[
        list[Annotated[str, Field(pattern=r"^.+/\d{1,18}/[^/]*$")]],
        Query(max_length=MOST, description="Run, cursor and series: `lm/120/loss,row_mass`; one for each run."),
    ],
) -> StreamingResponse:
    """Follow several runs in one stream; an event names by ``follow`` which of the parameters it is about."""
    followers = []
    for one in follow:
        name, cursor, series = one.rsplit("/", 2)
        if not named(name):
            raise HTTPException(404, absent(store, name))
        selections = [Selection.parse(part) for part in series.split(",") if part]
        followers.append(Follower(partial(store.open, name), selections, int(cursor)))
    return streamed(of_several(followers, request.app.state.stopping))
