"""The stream as its follower makes it, without a server; test_serve.py has it over a socket."""

import asyncio
import base64
import json
import shutil
from functools import partial

import numpy as np
import pytest

from stabmon.records import Failure, Heartbeat, RunState
from stabmon.series import Logged, is_missing
from stabmon.server.encoding import unpack
from stabmon.server.live import Event, Follower, of_one, of_several
from stabmon.server.selection import Selection
from stabmon.store import open_run

NEEDS = [Selection("loss"), Selection("attention_norm"), Selection("attention_norm", "layers.2")]


def events(found: list[Event]) -> list[tuple[str, int, object]]:
    """Return ``kind, id, data`` of each event, as a client parses them."""
    parsed = []
    for event in found:
        fields = dict(line.split(": ", 1) for line in event.alone().strip().split("\n"))
        parsed.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return parsed


def points(data: dict[str, str], name: str):
    return unpack(base64.b64decode(data[name]))


def test_only_new_points_are_sent_and_the_id_is_the_cursor_after_them(runs):
    writer = runs.start("live")
    runs.write(writer, range(5))
    follow = Follower(partial(open_run, runs.directory / "live"), NEEDS, cursor=3)
    kind, cursor, data = events(follow.look())[0]
    assert (kind, cursor) == ("points", 5)
    assert points(data, "loss").steps.tolist() == [3, 4]
    assert points(data, "attention_norm@layers.2").values.shape == (2, 4)
    assert "points" not in [kind for kind, _, _ in events(follow.look())]
    runs.write(writer, range(5, 7))
    assert points(events(follow.look())[0][2], "loss").steps.tolist() == [5, 6]


def test_numbers_logged_between_samples_are_sent_with_the_next_sample_or_at_the_end(runs):
    writer = runs.start("live")
    runs.write(writer, range(5))
    follow = Follower(partial(open_run, runs.directory / "live"), NEEDS, cursor=0)
    follow.look()
    writer.logged([Logged(5, 0.0, "loss", 7.0)])
    assert "points" not in [kind for kind, _, _ in events(follow.look())]
    runs.write(writer, range(6, 8))
    sent = points(events(follow.look())[0][2], "loss")
    assert sent.steps.tolist() == [5, 6, 7]
    assert sent.values[0, 0] == 7.0
    writer.logged([Logged(9, 0.0, "loss", 9.0)])
    writer.close(RunState.FINISHED)
    ended = events(follow.look())
    assert [kind for kind, _, _ in ended][-2:] == ["points", "end"]
    assert points(ended[-2][2], "loss").steps.tolist() == [9]
    assert points(ended[-2][2], "attention_norm").steps.tolist() == []
    assert ended[-1][1] == 7


def test_what_is_missing_is_sent_when_it_changes(runs):
    writer = runs.start("live")
    runs.write(writer, range(2))
    follow = Follower(partial(open_run, runs.directory / "live"), NEEDS, cursor=0)
    follow.look()
    writer.failures([Failure(subject="learning rate", reason="it is no number", first_step=1, last_step=1)])
    ((kind, _, (sent,)),) = events(follow.look())
    assert (kind, sent["subject"], sent["count"]) == ("failures", "learning rate", 1)
    assert follow.look() == []


def test_no_event_is_sent_while_nothing_changes(runs):
    runs.write(runs.start("live"), range(2))
    follow = Follower(partial(open_run, runs.directory / "live"), NEEDS, cursor=0)
    assert [kind for kind, _, _ in events(follow.look())] == ["points", "findings", "digest", "status"]
    assert follow.look() == []


def test_live_points_are_the_bits_that_a_series_has(runs, open_client):
    runs.finished("naive", naive=True)
    follow = Follower(partial(open_run, runs.directory / "naive"), NEEDS, cursor=0)
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
    found = events(Follower(partial(open_run, runs.directory / "resumed"), NEEDS, cursor=0).look())
    steps = [(cursor, points(data, "loss").steps.tolist()) for kind, cursor, data in found if kind == "points"]
    assert steps == [(5, [0, 1, 2, 3, 4]), (8, [3, 4, 5])]


def test_a_long_run_comes_in_parts_and_none_is_lost(runs, monkeypatch):
    monkeypatch.setattr("stabmon.server.live.BATCH", 100)
    runs.finished("long")
    follow = Follower(partial(open_run, runs.directory / "long"), NEEDS[:1], cursor=0)
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
    follow = Follower(partial(open_run, runs.directory / "ending"), NEEDS, cursor=0)
    assert [kind for kind, _, _ in events(follow.look())] == ["points", "findings", "digest", "status", "end"]
    assert follow.ended


def test_a_run_without_a_heartbeat_is_paused_and_its_stream_stays_open(runs):
    writer = runs.start("quiet")
    runs.write(writer, range(2))
    writer.heartbeat(Heartbeat(state=RunState.RUNNING, step=1, time=0.0))
    follow = Follower(partial(open_run, runs.directory / "quiet"), NEEDS, cursor=2)
    status = next(data for kind, _, data in events(follow.look()) if kind == "status")
    assert status["heartbeat"]["state"] == "paused"
    assert not follow.ended


def test_a_deleted_run_is_reported_and_ends_the_stream(runs):
    runs.write(runs.start("doomed"), range(2))
    follow = Follower(partial(open_run, runs.directory / "doomed"), NEEDS, cursor=2)
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
        async for text in (talk := of_one(follow, stop)):
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
    follow = Follower(partial(open_run, runs.directory / "quiet"), NEEDS, cursor=2)
    closed = []
    monkeypatch.setattr(Follower, "close", lambda self: closed.append(self))
    said = listen(follow, until="still here")
    assert said[0] == "retry: 1000\n\n"
    assert said[-1] == ": still here\n\n"
    assert closed == [follow]


def test_a_stopping_server_ends_a_stream_at_once(runs):
    runs.write(runs.start("live"), range(2))
    assert listen(
        Follower(partial(open_run, runs.directory / "live"), NEEDS, cursor=0), until="nothing", stopping=True
    ) == ["retry: 1000\n\n"]


def test_several_runs_come_in_one_stream_and_a_deleted_one_ends_alone(runs):
    writers = {name: runs.start(name) for name in ("a", "b")}
    for writer in writers.values():
        runs.write(writer, range(3))
    names = ["a", "b", "nowhere"]
    followers = [Follower(partial(open_run, runs.directory / name), NEEDS[:1], cursor=2) for name in names]

    async def first() -> str:
        said = ""
        async for text in (talk := of_several(followers, asyncio.Event())):
            said += text
            if "gone" in text:
                break
        await talk.aclose()
        return said

    said = asyncio.run(first())
    found = [dict(line.split(": ", 1) for line in part.split("\n")) for part in said.strip().split("\n\n")[1:]]
    data = [(one["event"], json.loads(one["data"])) for one in found]
    points_of = {names[one["follow"]]: one["cursor"] for kind, one in data if kind == "points"}
    assert points_of == {"a": 3, "b": 3}
    assert [names[one["follow"]] for kind, one in data if kind == "gone"] == ["nowhere"]


def test_a_series_that_a_run_does_not_record_ends_its_part_of_a_stream_with_what_there_is(runs):
    runs.write(runs.start("a"), range(3))
    follow = Follower(partial(open_run, runs.directory / "a"), [Selection("nothing")], cursor=0)
    (kind, _, data) = events(follow.look())[0]
    assert kind == "gone"
    assert "attention_norm" in data["detail"]


@pytest.mark.parametrize("follow", ["a", "a/x/loss", "a/-1/loss", "/0/loss", "a/99999999999999999999/loss", ""])
def test_a_follow_that_is_not_run_cursor_and_series_is_422(follow, runs, open_client):
    runs.write(runs.start("a"), range(3))
    client = open_client(runs.directory)
    assert client.get("/api/v1/live", params={"follow": follow}).status_code == 422
    assert client.get("/api/v1/live", params={"follow": ["a/0/loss"] * 65}).status_code == 422
    assert client.get("/api/v1/live", params={"follow": "../0/loss"}).status_code == 404
