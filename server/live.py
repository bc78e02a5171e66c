"""Live updates: one Server-Sent Events stream a page, whose event id is the cursor from which it can go on.

Events, each with JSON data: ``points`` (packed series in base64, new samples only), ``status`` (the heartbeat and its
age), ``findings`` (all of them, when they changed), ``digest`` (their order and words, when they or the run's state
changed), ``end`` (the run has ended: do not come back), ``gone`` (deleted).
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from stabmon.errors import StoreError
from stabmon.findings.digest import in_order
from stabmon.records import RunState
from stabmon.server.encoding import pack
from stabmon.server.folder import Folder, reading
from stabmon.server.routes import digest_of
from stabmon.server.selection import Selection
from stabmon.store import New, RunReader, open_run

router = APIRouter()

POLL = 0.5
"""Seconds between two looks at the run."""
BATCH = 1000
"""Most samples that one look sends."""
KEEP_ALIVE = 5.0
"""Seconds without an event after which an open stream sends a comment, so that a lost client is noticed."""


class Follower:
    """The part of one run that one client has been sent. Opens the run at its first look; ``close`` closes it."""

    def __init__(self, path: Path, selections: Sequence[Selection], cursor: int) -> None:
        self.path = path
        self.selections, self.cursor = selections, cursor
        self.reader: RunReader | None = None
        self.status = self.findings = self.digest = ""
        self.ended = False

    def look(self) -> list[str]:
        """Return the events since the last look, as text."""
        try:
            self.reader = self.reader or open_run(self.path)
            return self.changes(self.reader)
        except StoreError as error:
            self.ended = True
            return [self.event("gone", json.dumps({"detail": str(error)}))]

    def close(self) -> None:
        """Close the run."""
        if self.reader is not None:
            self.reader.close()

    def changes(self, reader: RunReader) -> list[str]:
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
        if status != self.status:
            age = max(0.0, time.time() - beat.time)
            events.append(self.event("status", f'{{"heartbeat":{status},"age":{age:.3f}}}'))
        self.findings, self.digest, self.status = found, words, status
        self.ended = beat.state in (RunState.FINISHED, RunState.FAILED) and len(new.steps) < BATCH
        return [*events, self.event("end", "{}")] if self.ended else events

    def points(self, reader: RunReader, new: New) -> str:
        """Return the event for new samples; its id is the cursor after them."""
        self.cursor = new.cursor
        packed = {str(one): pack(one.pick(reader.layout, new.steps, new.rows)) for one in self.selections}
        return self.event("points", json.dumps({name: b64encode(data).decode() for name, data in packed.items()}))

    def event(self, kind: str, data: str) -> str:
        """Frame one event; its id is where a client that lost the stream goes on."""
        return f"id: {self.cursor}\nevent: {kind}\ndata: {data}\n\n"


def without_rewinds(new: New) -> Iterator[New]:
    """Cut samples where a resumed run went back, so that the steps of each part ascend."""
    cuts = (np.flatnonzero(np.diff(new.steps) <= 0) + 1).tolist()
    first = new.cursor - len(new.steps)
    for start, end in pairwise([0, *cuts, len(new.steps)]):
        if end > start:
            yield New(first + end, new.steps[start:end], new.rows[start:end])


async def stream(follow: Follower, stopping: asyncio.Event) -> AsyncIterator[str]:
    """Yield events until the run ends or is deleted, the server stops, or the client leaves."""
    sent = time.monotonic()
    try:
        yield "retry: 1000\n\n"
        while not (stopping.is_set() or follow.ended):
            events = await to_thread.run_sync(follow.look)
            if events or time.monotonic() - sent > KEEP_ALIVE:
                sent = time.monotonic()
                yield "".join(events) or ": still here\n\n"
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), POLL)
    finally:
        follow.close()


@router.get(
    "/runs/{name}/live", response_class=StreamingResponse, responses={200: {"content": {"text/event-stream": {}}}}
)
def live(
    request: Request,
    folder: Folder,
    name: str,
    series: Annotated[str, Query(description="What to send, with commas: `loss,row_mass,row_mass@layers.3`.")] = "loss",
    cursor: Annotated[int, Query(ge=0, description="Where to begin: `cursor` of the run's description.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, description="Where a lost stream goes on; wins over `cursor`.")
    ] = None,
) -> StreamingResponse:
    """Follow a run: points, status, findings, as Server-Sent Events."""
    selections = [Selection.parse(part) for part in series.split(",") if part]
    with reading(folder, name) as reader:
        for selection in selections:
            selection.check(reader.layout)
    follow = Follower(folder / name, selections, cursor if last_event_id is None else last_event_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        stream(follow, request.app.state.stopping), media_type="text/event-stream", headers=headers
    )
