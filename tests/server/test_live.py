"""The stream as its follower makes it, without a server; test_serve.py has it over a socket."""

import asyncio
import base64
import json
import shutil

import numpy as np
import pytest

from stabmon.records import Heartbeat, RunState
from stabmon.series import is_missing
from stabmon.server.encoding import unpack
from stabmon.server.live import Follower, stream
from stabmon.server.selection import Selection

NEEDS = [Selection("loss"), Selection("attention_norm"), Selection("attention_norm", "layers.2")]


def events(texts: list[str]) -> list[tuple[str, int, object]]:
    """Parse ``kind, id, data`` of each event."""
    found = []
    for text in texts:
        fields = dict(line.split(": ", 1) for line in text.strip().split("\n"))
        found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


def points(data: dict[str, str], name: str):
    return unpack(base64.b64decode(data[name]))


def test_only_new_points_are_sent_and_the_id_is_the_cursor_after_them(runs):
    writer = runs.start("live")
    runs.write(writer, range(5))
    follow = Follower(runs.directory / "live", NEEDS, cursor=3)
    kind, cursor, data = events(follow.look())[0]
    assert (kind, cursor) == ("points", 5)
    assert points(data, "loss").steps.tolist() == [3, 4]
    assert points(data, "attention_norm@layers.2").values.shape == (2, 4)
    assert "points" not in [kind for kind, _, _ in events(follow.look())]
    runs.write(writer, range(5, 7))
    assert points(events(follow.look())[0][2], "loss").steps.tolist() == [5, 6]


def test_no_event_is_sent_while_nothing_changes(runs):
    runs.write(runs.start("live"), range(2))
    follow = Follower(runs.directory / "live", NEEDS, cursor=0)
    assert [kind for kind, _, _ in events(follow.look())] == ["points", "findings", "digest", "status"]
    assert follow.look() == []


def test_live_points_are_the_bits_that_a_series_has(runs, open_client):
    runs.finished("naive", naive=True)
    follow = Follower(runs.directory / "naive", NEEDS, cursor=0)
    live = points(events(follow.look())[0][2], "attention_norm")
    read = unpack(open_client(runs.directory).get("/api/v1/runs/naive/series/attention_norm").content)
    assert live.values.tobytes() == read.values.tobytes()
    assert list(live.spots) == list(read.spots)
    assert is_missing(live.values).sum() == 6 * 4
    assert np.isnan(live.values).sum() == 6 * 4 + 1


def test_a_resumed_run_that_went_back_is_cut_where_it_did(runs):
    writer = runs.start("resumed")
    runs.write(writer, range(5))
    runs.write(writer, range(3, 6))
    found = events(Follower(runs.directory / "resumed", NEEDS, cursor=0).look())
    steps = [(cursor, points(data, "loss").steps.tolist()) for kind, cursor, data in found if kind == "points"]
    assert steps == [(5, [0, 1, 2, 3, 4]), (8, [3, 4, 5])]


def test_a_long_run_comes_in_parts_and_none_is_lost(runs, monkeypatch):
    monkeypatch.setattr("stabmon.server.live.BATCH", 100)
    runs.finished("long")
    follow = Follower(runs.directory / "long", NEEDS[:1], cursor=0)
    steps: list[int] = []
    while not follow.ended:
        steps += [
            step
            for kind, _, data in events(follow.look())
            if kind == "points"
            for step in points(data, "loss").steps.tolist()
        ]
    assert steps == list(range(300))


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.FAILED])
def test_the_end_of_a_run_is_sent_once_after_its_last_points(runs, state):
    writer = runs.start("ending")
    runs.write(writer, range(4))
    writer.close(state)
    follow = Follower(runs.directory / "ending", NEEDS, cursor=0)
    assert [kind for kind, _, _ in events(follow.look())] == ["points", "findings", "digest", "status", "end"]
    assert follow.ended


def test_a_run_without_a_heartbeat_is_stale_and_its_stream_stays_open(runs):
    writer = runs.start("quiet")
    runs.write(writer, range(2))
    writer.heartbeat(Heartbeat(state=RunState.RUNNING, step=1, time=0.0))
    follow = Follower(runs.directory / "quiet", NEEDS, cursor=2)
    status = next(data for kind, _, data in events(follow.look()) if kind == "status")
    assert status["heartbeat"]["state"] == "stale"
    assert not follow.ended


def test_a_deleted_run_is_reported_and_ends_the_stream(runs):
    runs.write(runs.start("doomed"), range(2))
    follow = Follower(runs.directory / "doomed", NEEDS, cursor=2)
    follow.look()
    shutil.rmtree(runs.directory / "doomed")
    assert [kind for kind, _, _ in events(follow.look())] == ["gone"]
    assert follow.ended


def listen(follow: Follower, *, until: str, stopping: bool = False) -> list[str]:
    """Collect what a stream says up to a text that holds ``until``."""

    async def collect() -> list[str]:
        stop, said = asyncio.Event(), []
        if stopping:
            stop.set()
        async for text in (talk := stream(follow, stop)):
            said.append(text)
            if until in text:
                break
        await talk.aclose()
        return said

    return asyncio.run(asyncio.wait_for(collect(), 10))


def test_an_idle_stream_sends_comments_and_the_run_is_closed_when_the_client_leaves(runs, monkeypatch):
    monkeypatch.setattr("stabmon.server.live.POLL", 0.01)
    monkeypatch.setattr("stabmon.server.live.KEEP_ALIVE", 0.05)
    runs.write(runs.start("quiet"), range(2))
    follow = Follower(runs.directory / "quiet", NEEDS, cursor=2)
    closed = []
    monkeypatch.setattr(Follower, "close", lambda self: closed.append(self))
    said = listen(follow, until="still here")
    assert said[0] == "retry: 1000\n\n"
    assert said[-1] == ": still here\n\n"
    assert closed == [follow]


def test_a_stopping_server_ends_a_stream_at_once(runs):
    runs.write(runs.start("live"), range(2))
    assert listen(Follower(runs.directory / "live", NEEDS, cursor=0), until="nothing", stopping=True) == [
        "retry: 1000\n\n"
    ]
