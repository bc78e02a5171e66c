"""An exchange that others take no part in any more is given up, and the process that gave it up ends."""

import json
import time

import pytest
from torch import distributed, multiprocessing

from stabmon.distributed import Exchange, Meeting, Own
from stabmon.failures import Failures

pytestmark = pytest.mark.skipif(not distributed.is_gloo_available(), reason="needs gloo")
LONG = 120
"""Seconds after which a process that hangs is ended."""


def exchange(failures):
    meeting = Meeting()
    owns = meeting.exchange(Own(attentions=()).model_dump_json())
    return Exchange(meeting, [Own.model_validate_json(own) for own in owns], failures)


def process(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    failures = Failures()
    unconnected, connected = exchange(failures), exchange(failures)
    merged = connected.reduce(0, connected.plan.initial, lambda: None)
    if rank == 1:
        _wait_for(folder / "rank 0 has ended")
        return
    unconnected.deadline = connected.deadline = time.monotonic()
    given_up = unconnected.reduce(0, unconnected.plan.initial, lambda: None)
    connected.end()
    found = [merged is not None, given_up is not None, failures.texts]
    (folder / "found.json").write_text(json.dumps(found))


def _wait_for(file):
    """Take no part in any exchange until ``file`` is there."""
    until = time.monotonic() + LONG
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)


def test_a_rank_that_nobody_connects_to_gives_up_and_its_process_ends_before_the_other(tmp_path):
    start = multiprocessing.get_context("spawn").Process
    first, other = (start(target=process, args=(rank, tmp_path), daemon=True) for rank in (0, 1))
    first.start()
    other.start()
    first.join(LONG / 2)
    ended = first.exitcode
    (tmp_path / "rank 0 has ended").touch()
    other.join(LONG)
    first.join(LONG)
    assert ended == 0
    exchanged, given_up, failures = json.loads((tmp_path / "found.json").read_text())
    assert (exchanged, given_up) == (True, False)
    assert any("this monitor was closed and others were not" in text for text in failures)
