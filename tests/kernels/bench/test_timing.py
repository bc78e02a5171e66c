"""Interleaving is fair: a drifting clock, a stand-in for a device that slows down, leaves ratios as they are."""

import itertools
import time

import pytest
import torch

from stabmon.kernels.bench import host, timing


class Drifting:
    """Stands in for the stopwatch: a call returns its milliseconds, and each lap takes longer than the one before."""

    def __init__(self):
        self.passed = 0.0

    def lap(self, call):
        taken = call() * (1 + self.passed / 1000)
        self.passed += taken
        return lambda: taken

    def wait(self):
        pass


def test_a_drifting_clock_leaves_ratios_as_they_are(monkeypatch):
    monkeypatch.setattr(timing, "Stopwatch", Drifting)
    found = timing.medians({"slow": lambda: 1.5, "quick": lambda: 1.0, "same": lambda: 1.0}, rounds=30)
    assert found["quick"] > 1.05
    assert found["same"] / found["quick"] == pytest.approx(1, abs=0.02)
    assert found["slow"] / found["quick"] == pytest.approx(1.5, abs=0.03)


def test_a_batch_lasts_a_few_milliseconds_and_is_one_call_at_least(monkeypatch):
    calls = {"short": 0, "long": 0}
    monkeypatch.setattr(timing, "Stopwatch", Drifting)

    def call(name, milliseconds):
        calls[name] += 1
        return milliseconds

    timing.medians({"short": lambda: call("short", timing.BATCH / 8), "long": lambda: call("long", 20.0)}, rounds=10)
    assert calls == {"short": 4 + 8 * 10, "long": 4 + 10}


def test_every_round_times_each_contender_once_in_a_random_order():
    names = "".join(timing.interleaved("abc", 30))
    rounds = [names[at : at + 3] for at in range(0, 90, 3)]
    assert all(set(order) == set("abc") for order in rounds)
    assert len(set(rounds)) == 6
    assert names == "".join(timing.interleaved("abc", 30))


def test_host_time_is_that_of_one_call(monkeypatch):
    clock = itertools.count(step=0.001)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert timing.host_medians({"call": lambda: None}, rounds=3) == {"call": pytest.approx(1000 / timing.HOST_CALLS)}


def test_each_kind_of_call_is_timed_on_the_host(monkeypatch):
    ways = {"ours": lambda query, key, value: query * key * value}
    calls = host.calls_by_kind(ways, [torch.ones(2) for _ in range(4)])
    assert tuple(calls) == host.KINDS
    assert not calls["forward"]["ours"]().requires_grad
    assert calls["forward with gradient"]["ours"]().requires_grad
    assert len(calls["backward"]["ours"]()) == 3


def test_host_times_are_shown_as_a_table():
    times = {"forward": 44.4, "forward with gradient": 68.1, "backward": 119.6}
    shown = host.table({"microseconds": {"cudnn": times}})
    assert shown.splitlines()[-1] == "| cudnn | 44 | 68 | 120 |"
