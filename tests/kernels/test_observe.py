import pytest
import torch

from stabmon.kernels import AuxRequest, observe, sigmoid_attention


class Recorder:
    def __init__(self, request=None):
        self.asked, self.wanted, self.calls = 0, request, []

    def request(self, query, key):
        self.asked += 1
        return self.wanted

    def record(self, call):
        self.calls.append(call)


class Summing:
    def __init__(self):
        self.total = torch.zeros(9)

    def request(self, query, key):
        return AuxRequest(rows=4)

    def record(self, call):
        self.total.add_(call.aux.statistics.sum((0, 1)))


@pytest.fixture
def watching():
    previous = []

    def watch(observer):
        previous.append(observe.swap(observer))
        return observer

    yield watch
    observe.swap(previous[0] if previous else None)


def draw(length=12):
    return [torch.randn(1, 2, length, 16) for _ in range(3)]


def test_swap_returns_the_previous_observer(watching):
    first, second = Recorder(), Recorder()
    watching(first)
    assert observe.current() is first
    assert observe.swap(second) is first
    assert observe.current() is second


def test_a_call_is_recorded_as_it_was_computed(watching):
    recorder = watching(Recorder(AuxRequest(rows=3)))
    query, key, value = draw()
    output = sigmoid_attention(query, key, value, is_causal=True)
    (call,) = recorder.calls
    assert recorder.asked == 1
    assert call.problem.query is query
    assert call.output is output
    assert call.problem.bias_value == pytest.approx(-2.4849, abs=1e-4)
    assert call.problem.scale == 0.25
    assert call.problem.is_causal
    assert call.aux.statistics[0, 0, 2] == 3


def test_a_call_is_recorded_without_statistics_too(watching):
    recorder = watching(Recorder())
    sigmoid_attention(*draw(), bias=torch.zeros(2))
    assert recorder.calls[0].aux is None
    assert torch.equal(recorder.calls[0].problem.bias, torch.zeros(2))


def test_the_users_request_and_the_observers_do_not_mix(watching):
    recorder = watching(Recorder(AuxRequest(rows=3)))
    _, aux = sigmoid_attention(*draw(), return_aux=AuxRequest(rows=5))
    assert aux.statistics[0, 0, 2] == 5
    assert recorder.calls[0].aux.statistics[0, 0, 2] == 3


def test_observing_changes_no_bit(watching):
    tensors = draw()
    plain = sigmoid_attention(*tensors)
    watching(Recorder(AuxRequest()))
    assert torch.equal(plain, sigmoid_attention(*tensors))


def test_observing_breaks_no_graph(watching):
    compiled = torch.compile(lambda *args: sigmoid_attention(*args), fullgraph=True, backend="aot_eager")
    tensors = draw()
    plain = compiled(*tensors)
    observer = watching(Summing())
    assert torch.equal(compiled(*tensors), plain)
    assert observer.total[2] == 8
    compiled(*tensors)
    assert observer.total[2] == 16
