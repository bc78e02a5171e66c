"""Statistics that come with the output, from a kernel that may begin while the forward runs."""

import pytest
import torch

from stabmon.kernels import AuxRequest, cache, device, dispatch, observe, ops, sigmoid_attention

GPU = torch.cuda.is_available()
DEVICE, HALF = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
pytestmark = pytest.mark.skipif(not GPU and not device.interpreted(), reason="needs a CUDA device or the interpreter")
NEWEST = GPU and torch.cuda.get_device_capability() == (9, 0)
hopper = pytest.param("hopper", marks=pytest.mark.skipif(not NEWEST, reason="needs capability 9.0"))
BACKENDS = ["triton", hopper]
REQUESTS = [AuxRequest(0), AuxRequest(16), AuxRequest(16, 0.3, 1), AuxRequest(64, 0.3, 2)]


class Recorder:
    def __init__(self, request):
        self.wanted, self.calls = request, []

    def request(self, query, key):
        return self.wanted

    def record(self, call):
        self.calls.append(call)


@pytest.fixture
def watching():
    previous = []

    def watch(request):
        recorder = Recorder(request)
        previous.append(observe.swap(recorder))
        return recorder

    yield watch
    observe.swap(previous[0] if previous else None)


def draw(batch=3, heads=4, n=20, dim=64, unaligned=False):
    def tensor():
        last = torch.randn(batch, heads, n, dim + unaligned, device=DEVICE).to(HALF)
        return last[..., unaligned:]

    return [tensor() for _ in range(3)]


def measure(tensors, request, backend, **options):
    return sigmoid_attention(*tensors, return_aux=request, backend=backend, is_causal=True, **options)[1].statistics


def check(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-2 if GPU else 1e-4, atol=0.5 if GPU else 1e-3)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_come_with_the_output(backend, request_, monkeypatch):
    monkeypatch.setattr(ops, "row_statistics", lambda *_: pytest.fail("a second operator ran"))
    for tensors in (draw(), draw(unaligned=True)):
        check(measure(tensors, request_, backend), measure(tensors, request_, "eager"))


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
def test_equal_requests_share_one_result(backend, watching, monkeypatch):
    if backend != "eager":
        monkeypatch.setattr(dispatch, "_measure", lambda *_: pytest.fail("measured twice"))
    recorder = watching(AuxRequest(3, 0.25))
    found = measure(draw(), AuxRequest(3, 0.25), backend)
    assert recorder.calls[0].aux.statistics is found


@pytest.mark.parametrize("backend", ["eager", *BACKENDS])
@pytest.mark.parametrize(("observed", "asked"), [(5, 3), (0, 3), (3, 0)])
def test_different_requests_do_not_mix(backend, observed, asked, watching):
    tensors = draw()
    expected = [measure(tensors, AuxRequest(rows), "eager") for rows in (observed, asked)]
    recorder = watching(AuxRequest(observed))
    found = measure(tensors, AuxRequest(asked), backend)
    check(recorder.calls[0].aux.statistics, expected[0])
    check(found, expected[1])
    assert torch.equal(found[..., 0], recorder.calls[0].aux.statistics[..., 0])


@pytest.mark.parametrize(("batch", "heads", "n"), [(5, 2, 1), (1, 1, 300)])
def test_more_heads_than_programs_and_fewer(batch, heads, n):
    tensors, request = draw(batch, heads, n, 16), AuxRequest(3, 0.5, 1)
    check(measure(tensors, request, "triton"), measure(tensors, request, "eager"))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [0, 16])
@pytest.mark.parametrize("unaligned", [False, True], ids=["aligned", "copied"])
def test_calls_back_to_back_measure_their_own_inputs(backend, rows, unaligned):
    """Memory that one call gives up is the next one's: no statistics may be written over what a forward reads."""
    inputs = [draw(2, 8, 2048, 64, unaligned) for _ in range(6)]
    plain = [sigmoid_attention(*tensors, is_causal=True, backend=backend) for tensors in inputs]
    request = AuxRequest(rows, 0.5, 1)
    expected = [measure(tensors, request, backend) for tensors in inputs]
    torch.cuda.synchronize()
    for output, found in zip(plain, expected, strict=True):
        sums = output.float().square().sum((-1, -2))
        torch.testing.assert_close(found[..., 0], sums, rtol=1e-4, atol=0)
    wrong = torch.zeros((), device=DEVICE)
    for step in range(300):
        at = step % len(inputs)
        output, aux = sigmoid_attention(*inputs[at], return_aux=request, is_causal=True, backend=backend)
        wrong += (output != plain[at]).any() | (aux.statistics != expected[at]).any()
        del output, aux
    assert wrong.item() == 0


@pytest.mark.gpu
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [-1, 0, 16])
def test_graphs_replay_output_and_statistics(backend, rows):
    inputs = [draw(2, 8, 2048, 64, unaligned) for unaligned in (False, True, False)]
    request = None if rows < 0 else AuxRequest(rows, 0.5, 1)

    def call(tensors):
        found = sigmoid_attention(*tensors, return_aux=request, is_causal=True, backend=backend)
        return [found] if request is None else [found[0], found[1].statistics]

    expected = [call(tensors) for tensors in inputs for _ in range(4)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = [call(tensors) for tensors in inputs for _ in range(4)]
    for _ in range(20):
        for results in captured:
            for tensor in results:
                tensor.fill_(torch.nan)
        graph.replay()
        for found, true in zip(captured, expected, strict=True):
            assert all(map(torch.equal, found, true))


@pytest.mark.gpu
@pytest.mark.skipif(not NEWEST, reason="needs capability 9.0")
def test_the_kernel_is_launched_to_overlap():
    measure(draw(), AuxRequest(16, 0.5, 1), "hopper")
    found = [ready.launcher for key, ready in cache._kept.items() if key[0] == "statistics"]
    compiled = [kernel for launcher in found for kernel in launcher._compiled.values()]
    assert compiled
    assert all(kernel.metadata.launch_pdl for kernel in compiled)
