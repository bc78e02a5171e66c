"""Clients that hold the server: many streams, streams that are never read, requests whose end never comes."""

import asyncio
from contextlib import ExitStack

import httpx

from stabmon.server.live import stream
from stabmon.server.stream_bench import HALF, connect, end, server, stream_of


def live(runs):
    """A run that goes on, with enough samples that an unread stream fills its connection."""
    writer = runs.start("live")
    runs.write(writer, range(200))
    return writer


def test_sigterm_ends_streams_unread_streams_and_half_requests_without_a_traceback(runs):
    writer = live(runs)
    assert end(runs.directory, "live", "row_mass,attention_norm", streams=40, idle=10).said == ""
    writer.close("finished")


def test_clients_that_never_read_and_half_requests_hold_nobody_else_up(runs):
    writer = live(runs)
    with server(runs.directory) as (_, host, port), ExitStack() as clients:
        for request in [HALF] * 60 + [stream_of("live", "row_mass,attention_norm")] * 60:
            clients.enter_context(connect(host, port, request))
        for _ in range(3):
            answer = httpx.get(f"http://{host}:{port}/api/v1/runs/live", timeout=60)
            assert answer.json()["name"] == "live"
    writer.close("finished")


def test_a_look_that_waits_for_a_thread_when_the_server_stops_is_not_begun(monkeypatch):
    looks = []

    async def follow():
        stopping = asyncio.Event()

        async def late(look):
            stopping.set()
            return look()

        monkeypatch.setattr("stabmon.server.live.to_thread.run_sync", late)
        return [text async for text in stream(lambda: (looks.append(1) or [], False), lambda: None, stopping)]

    assert asyncio.run(follow()) == ["retry: 1000\n\n"]
    assert looks == []
