import importlib.util

import pytest
import torch


@pytest.fixture
def completion_counters():
    """A copy of the module that has handed out no counters yet."""
    spec = importlib.util.find_spec("stabmon.kernels.launching.completion_counters")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Stream:
    def __init__(self, number):
        self.cuda_stream, self.waited = number, 0

    def synchronize(self):
        self.waited += 1


@pytest.fixture
def device(monkeypatch, completion_counters):
    """A CUDA device with two streams and without memory of its own."""
    fake = type("Fake", (), {"stream": Stream(1), "other": Stream(2), "capturing": False, "zeroed": []})()
    zeros = torch.zeros

    def on_host(number, dtype, device):
        fake.zeroed.append(number)
        return zeros(number, dtype=dtype)

    monkeypatch.setattr(torch, "zeros", on_host)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: fake.stream)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: fake.capturing)
    monkeypatch.setattr(completion_counters, "SIZE", 256)
    return fake


CUDA = torch.device("cuda", 0)


def test_calls_on_a_stream_share_counters_and_streams_do_not(device, completion_counters):
    first = completion_counters.counters(CUDA, 5, "one")
    assert completion_counters.counters(CUDA, 3, "one").data_ptr() == first.data_ptr()
    device.stream = device.other
    second = completion_counters.counters(CUDA, 5, "one")
    assert abs(second.data_ptr() - first.data_ptr()) == 4 * completion_counters.LINE
    assert device.zeroed == [256]
    assert device.other.waited == 0, "the zeros were there"


def test_kernels_on_one_stream_share_no_counters_as_they_may_overlap(device, completion_counters):
    first, second = (completion_counters.counters(CUDA, 5, kernel) for kernel in ("one", "two"))
    assert abs(second.data_ptr() - first.data_ptr()) == 4 * completion_counters.LINE


def test_a_larger_call_gets_more_counters_and_later_calls_share_them(device, completion_counters):
    small, large = completion_counters.counters(CUDA, 5, "one"), completion_counters.counters(CUDA, 100, "one")
    assert large.size(0) >= 100
    assert small.data_ptr() != large.data_ptr() == completion_counters.counters(CUDA, 5, "one").data_ptr()
    assert completion_counters.counters(CUDA, 1000, "one").size(0) >= 1000
    assert device.stream.waited == len(device.zeroed) == 2


def test_captured_calls_share_no_counters_and_zeroing_is_captured_only_where_none_are_left(device, completion_counters):
    eager = completion_counters.counters(CUDA, 5, "one")
    device.capturing = True
    captured = [completion_counters.counters(CUDA, 5, "one") for _ in range(10)]
    assert len({x.data_ptr() for x in [eager, *captured]}) == 11
    assert device.zeroed == [256, 32, 32, 32], "eight lines, of which one was taken eagerly"
    assert device.stream.waited == 1


def test_counters_on_the_host_are_new_for_each_call(completion_counters):
    found, other = (completion_counters.counters(torch.device("cpu"), 3, "one") for _ in range(2))
    assert found.data_ptr() != other.data_ptr()
    assert found.dtype == torch.int32
    assert found.count_nonzero() == 0
