"""A run that is sent to a server is there once and whole, whatever happens on the way; on both kinds of store."""

import json
import struct

import numpy as np
import pytest

from stabmon.errors import StoreError
from stabmon.records import Failure, RunState
from stabmon.remote.client import Refused, Unreachable
from stabmon.series import Logged
from stabmon.store import wire
from stabmon.store.tokens import Scope
from stabmon.store.writer import NewSample
from tests.remote.conftest import LAYOUT, assert_same, info

DEEP = struct.pack("<II", 100_000, wire.FORMAT) + b"[" * 100_000
NO_TEXT = wire.pack(wire.SampleBatch(0, (), (Logged(0, 0.0, "\ud800", 0.0),)), 4)
LARGE = b'[{"subject": "a", "reason": "b", "first_step": 0, "last_step": 0, "count": 9223372036854775808}]'


def test_a_run_is_copied_bit_for_bit_as_it_grows_and_ends(local, client, store, copy_of):
    copy = copy_of(local.folder, client)
    for part in (range(5), range(5, 130), range(130, 131), range(131, 300)):
        local.train(part)
        copy.send()
        assert copy.samples == part[-1] + 1
    local.writer.failures([Failure(subject="a sink", reason="it hung", first_step=3, last_step=9, count=2)])
    copy.send()
    assert not copy.ended
    with store.open("lm") as run:
        assert run.heartbeat().state is RunState.RUNNING
    local.close()
    copy.send()
    assert copy.ended
    assert_same(store, "lm", local.folder)
    with store.open("lm") as run:
        assert run.heartbeat().state is RunState.FINISHED


def test_a_resumed_run_that_went_back_has_the_same_attempts(local, client, store, copy_of, start_run):
    local.train(range(150))
    copy_of(local.folder, client).send()
    local.close(RunState.FAILED)
    again = start_run(local.folder.parent, resume=True)
    again.train(range(100, 180))
    again.close()
    copy = copy_of(local.folder, client)
    copy.send()
    assert copy.ended
    assert_same(store, "lm", local.folder)


def test_what_is_sent_twice_is_stored_once(local, client, store, copy_of, connect, token):
    local.train(range(140))
    first, second = (
        copy_of(local.folder, client),
        copy_of(local.folder, connect(client.address, token)),
    )
    first.send()
    second.send()
    rows = [NewSample(step, 0.0, np.zeros(4, np.float32)) for step in range(1, 200)]
    answer = client.send(
        "POST", "/runs/lm/samples", wire.pack(wire.SampleBatch(0, tuple(rows[:140])), 4), wire.MEDIA_TYPE
    )
    assert answer == {"samples": 140}
    with pytest.raises(Refused, match="has 140 samples, so the next is number 140; got number 141") as refused:
        client.send("POST", "/runs/lm/samples", wire.pack(wire.SampleBatch(141, tuple(rows[:1])), 4), wire.MEDIA_TYPE)
    assert refused.value.status == 409
    local.close()
    first.send()
    assert_same(store, "lm", local.folder)


def test_another_run_of_the_same_name_gets_a_name_of_its_own(tmp_path, local, client, store, copy_of, start_run):
    other = start_run(tmp_path / "elsewhere")
    for run in (local, other):
        run.train(range(3))
        run.close()
        copy_of(run.folder, client).send()
    assert store.names() == ["lm", "lm-2"]
    assert_same(store, "lm", local.folder)
    assert_same(store, "lm-2", other.folder)


def test_a_server_that_was_killed_goes_on_where_it_was(local, server, client, store, copy_of):
    copy = copy_of(local.folder, client)
    for start in (0, 100, 200):
        local.train(range(start, start + 90))
        copy.send()
        server.kill()
        local.train(range(start + 90, start + 100))
        with pytest.raises(Unreachable, match="does not answer"):
            copy.send()
        server.start()
        with pytest.raises(Refused, match="is not open here"):
            copy.send()
    local.close()
    copy.send()
    assert_same(store, "lm", local.folder)


def test_two_servers_of_one_store_take_one_run_in_turns(local, start_server, token, store, copy_of, connect):
    copies = [copy_of(local.folder, connect(start_server().address, token)) for _ in range(2)]
    for number in range(12):
        local.train(range(30 * number, 30 * number + 30))
        copy = copies[number % 2]
        copy.samples = 0 if number == 7 else copy.samples  # sends everything again
        copy.send()
    local.close()
    copies[0].send()
    assert copies[0].ended
    assert_same(store, "lm", local.folder)


def test_a_run_that_is_deleted_while_it_is_sent_is_gone(local, client, store, copy_of):
    local.train(range(3))
    copy = copy_of(local.folder, client)
    copy.send()
    store.delete("lm")
    local.train(range(3, 6))
    with pytest.raises(Refused) as refused:
        copy.send()
    assert refused.value.status in (404, 410)
    with pytest.raises(StoreError):
        store.open("lm")


@pytest.mark.parametrize(
    ("method", "path", "kind", "data", "status", "words"),
    [
        ("POST", "/runs", "application/json", b"{", 422, "Invalid JSON"),
        ("POST", "/runs", "text/plain", b"{}", 415, "content type must be application/json"),
        ("POST", "/runs/lm/samples", wire.MEDIA_TYPE, b"", 422, "less than its first 8 bytes"),
        ("POST", "/runs/lm/samples", wire.MEDIA_TYPE, b"\x05\0\0\0\x09\0\0\0hello", 422, "got format 9"),
        ("POST", "/runs/lm/samples", wire.MEDIA_TYPE, b"\x05\0\0\0\x01\0\0\0hello", 422, "header of a batch"),
        (
            "POST",
            "/runs/lm/samples",
            wire.MEDIA_TYPE,
            wire.pack(wire.SampleBatch(0, ()), 5),
            422,
            "have 4 columns, got 5",
        ),
        ("POST", "/runs/lm/samples", wire.MEDIA_TYPE, wire.pack(wire.SampleBatch(0, ()), 4) + b"x", 422, "bytes, got"),
        ("POST", "/runs/lm/samples", wire.MEDIA_TYPE, bytes((1 << 25) + 1), 413, "may have"),
        ("POST", "/runs/lm/samples", wire.MEDIA_TYPE, DEEP, 422, "header of a batch"),
        ("POST", "/runs/lm/samples", wire.MEDIA_TYPE, NO_TEXT, 422, "a list of names"),
        ("PUT", "/runs/lm/failures", "application/json", LARGE, 422, "must be below 2"),
        ("PUT", "/runs/lm/findings", "application/json", b"[{}]", 422, "Field required"),
        ("PUT", "/runs/lm/heartbeat", "application/json", b"{}", 422, "Field required"),
        ("PUT", "/runs/nowhere/findings", "application/json", b"[]", 404, "there is no run"),
    ],
)
def test_a_wrong_request_is_refused_in_words(method, path, kind, data, status, words, local, client, copy_of):
    copy_of(local.folder, client).send()
    with pytest.raises(Refused, match=words) as refused:
        client.send(method, path, data, kind)
    assert refused.value.status == status


def test_tokens_allow_what_their_scope_says(local, server, store, token, copy_of, connect):
    reads, admin = store.tokens.create("page", Scope.READ), store.tokens.create("boss", Scope.ADMIN)
    for secret in (reads, "stabmon_wrong", None):
        with pytest.raises(Refused) as refused:
            copy_of(local.folder, connect(server.address, secret)).send()
        assert refused.value.status == (403 if secret == reads else 401)
    copy_of(local.folder, connect(server.address, token)).send()
    with pytest.raises(Refused, match="may write, and this needs a token of scope read"):
        connect(server.address, token).send("GET", "/runs/lm", b"")
    assert connect(server.address, reads).send("GET", "/runs/lm", b"")["name"] == "lm"
    with pytest.raises(Refused, match="needs a token of scope admin"):
        connect(server.address, token).send("DELETE", "/runs/lm", b"")
    assert connect(server.address, admin).send("DELETE", "/runs/lm", b"") == {}
    assert store.names() == []


def test_the_store_keeps_no_token_in_clear(place, store, token):
    assert [one.name for one in store.tokens.listed()] == ["trainings"]
    assert store.tokens.scope_of(token) is Scope.WRITE
    if not isinstance(place, str):
        assert token.encode() not in (place / "tokens.sqlite").read_bytes()
        assert (place / "tokens.sqlite").stat().st_mode & 0o077 == 0
    with pytest.raises(StoreError, match="already"):
        store.tokens.create("trainings", Scope.READ)
    assert store.tokens.revoke("trainings")
    assert store.tokens.scope_of(token) is None


def test_a_hostile_layout_is_refused(client):
    columns = [{"metric": "loss", "layer": None, "start": 0, "size": 1 << 40}]
    data = {"info": json.loads(info("wide").model_dump_json()), "layout": {"columns": columns}}
    with pytest.raises(Refused, match="a row has at most"):
        client.send("POST", "/runs", json.dumps(data).encode())
    for name in ("..", "a/b", ""):
        data = {"info": json.loads(info("x").model_dump_json()) | {"name": name}, "layout": LAYOUT.model_dump()}
        with pytest.raises(Refused) as refused:
            client.send("POST", "/runs", json.dumps(data).encode())
        assert refused.value.status == 422
