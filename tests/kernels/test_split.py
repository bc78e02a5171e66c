"""The split-key forward against float64, in every mode and number of splits, and the choice between it and others."""

import itertools
import math
from functools import partial

import pytest
import torch

from stabmon.kernels import AuxRequest, device, sigmoid_attention
from stabmon.kernels.bench import accuracy
from stabmon.kernels.eager import reference
from stabmon.kernels.problem import Problem
from stabmon.kernels.triton import splitting

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if GPU else [])]
ALLOWED = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""Relative errors ‖out − ref‖ / ‖ref‖ of the output in these types."""

pytestmark = pytest.mark.skipif(not (GPU or device.interpreted()), reason="needs a CUDA device or Triton's interpreter")


def problem_of(batch, heads, key_heads, n_q, n_k, dim, dtype=torch.float32, bias=None, **options):
    query = torch.randn(batch, heads, n_q, dim, device=DEVICE).to(dtype)
    key, value = (torch.randn(batch, key_heads, n_k, dim, device=DEVICE).to(dtype) for _ in range(2))
    number = -math.log(n_k) if bias is None else 0.0
    return Problem(query, key, value, bias, number, scale=dim**-0.5, **options)


def run(problem, splits, measure=None):
    from stabmon.kernels.triton import split

    output = torch.full_like(problem.query, torch.nan)
    split.forward(problem, output, measure, splits)
    return output


def expected(problem):
    doubled = {
        name: x.double()
        for name, x in problem._asdict().items()
        if isinstance(x, torch.Tensor) and x.is_floating_point()
    }
    return reference.sigmoid_attention(problem._replace(**doubled))


def error(problem, output):
    true = expected(problem)
    return ((output.double() - true).norm() / true.norm().clamp(min=1e-300)).item()


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 4, 1, 1, 200, 64),
        (2, 8, 2, 5, 333, 16),
        (1, 2, 2, 70, 90, 40),
        (1, 6, 2, 3, 1, 32),
        (1, 2, 2, 20, 50, 128),
    ],
    ids=lambda shape: "B{}-H{}:{}-Q{}-K{}-D{}".format(*shape),
)
@pytest.mark.parametrize(("dtype", "is_causal"), [(DTYPES[0], False), *((dtype, True) for dtype in DTYPES)], ids=str)
def test_the_output_is_that_of_float64(shape, is_causal, dtype, splits):
    problem = problem_of(*shape, dtype, is_causal=is_causal)
    assert error(problem, run(problem, splits)) < ALLOWED[dtype]


OPTIONS = {
    "bias-by-head": {"bias": torch.linspace(-6, -3, 4)},
    "bias-by-sequence": {"bias": torch.tensor([[-5.0], [-3.0]])},
    "alibi": {"alibi_slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625])},
    "window": {"window": 20},
    "causal-window": {"window": 20, "is_causal": True},
    "lengths": {"key_lengths": torch.tensor([130, 1])},
    "no-key": {"key_lengths": torch.tensor([0, 77]), "is_causal": True},
    "all": {"alibi_slopes": torch.rand(4), "window": 70, "is_causal": True, "key_lengths": torch.tensor([100, 140])},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("n_q", "splits"), [(1, 1), (7, 3)])
def test_every_option_is_that_of_float64(name, n_q, splits):
    options = {key: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for key, x in OPTIONS[name].items()}
    problem = problem_of(2, 4, 2, n_q, 140, 32, **options)
    assert error(problem, run(problem, splits)) < ALLOWED[torch.float32]


def test_any_strides_are_read_and_written():
    problem = problem_of(2, 4, 2, 3, 90, 32)
    strided = problem._replace(
        query=problem.query.transpose(1, 2).contiguous().transpose(1, 2),
        key=torch.randn(2, 90, 2, 3, 32, device=DEVICE)[:, :, :, 1].transpose(1, 2),
        value=problem.value[:, :, ::3].repeat_interleave(3, 2)[:, :, 1:],
    )
    strided = strided._replace(key=strided.key[:, :, 1:])
    assert error(strided, run(strided, 2)) < ALLOWED[torch.float32]


def test_a_repeated_run_gives_the_same_bits_and_leaves_its_counters_at_zero():
    problem = problem_of(1, 4, 2, 3, 130, 32)
    first, second = run(problem, 4), run(problem, 4)
    assert torch.equal(first, second)


@pytest.mark.parametrize("splits", [1, 3])
def test_sums_of_squares_are_those_of_the_output(splits):
    problem, seen = problem_of(2, 4, 2, 5, 100, 32, is_causal=True), []

    def measure(_):
        return lambda sums: seen.append(sums) or sums

    output = run(problem, splits, measure)
    torch.testing.assert_close(seen[0].double().sum(-1), output.double().square().sum((-2, -1)), rtol=1e-6, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("n_q", [1, 16, 200])
def test_auto_measures_the_same_statistics_as_eager(n_q):
    query, key, value = (torch.randn(2, 8, n, 64, device="cuda", dtype=torch.bfloat16) for n in (n_q, 4096, 4096))
    found, expected = (
        sigmoid_attention(query, key, value, is_causal=True, return_aux=AuxRequest(8), backend=backend)[1].statistics
        for backend in ("auto", "eager")
    )
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_the_splits_cover_the_keys_and_no_more():
    for n_q, n_k, window, causal in itertools.product((1, 9, 300), (1, 64, 1000, 131072), (None, 100), (False, True)):
        problem = problem_of(1, 4, 1, n_q, 1, 16, is_causal=causal, window=window)
        problem = problem._replace(key=torch.empty(1, 1, n_k, 16, device="meta"))
        for splits in (None, 1, 7):
            cut = splitting.cut(problem, 16, 32, splits)
            seen = n_k if window is None else min(n_k, 2 * window + n_q + 200)
            assert cut.splits * cut.chunk >= min(n_k, (window or n_k))
            assert (cut.splits - 1) * cut.chunk < seen + 32


DECODING = [(1, 32, 8, 1, 8192, 128), (32, 32, 8, 1, 4096, 128), (1, 32, 8, 1, 131072, 128), (1, 8, 8, 16, 512, 64)]
SATURATED = [(8, 32, 32, 2048, 2048, 64), (1, 32, 32, 16384, 16384, 128), (2, 16, 16, 8192, 8192, 64)]


@pytest.mark.parametrize(("shape", "chosen"), [*((s, True) for s in DECODING), *((s, False) for s in SATURATED)])
@pytest.mark.parametrize("other", [splitting.HOPPER, splitting.TRITON], ids=["hopper", "triton"])
def test_decoding_is_split_and_saturated_grids_are_not(shape, chosen, other, monkeypatch):
    monkeypatch.setattr(device, "on_device", lambda _: True)
    monkeypatch.setattr(device, "capability", lambda _: (9, 0))
    monkeypatch.setattr(device, "processors", lambda _: 132)
    batch, heads, key_heads, n_q, n_k, dim = shape
    query = torch.empty(batch, heads, n_q, dim, dtype=torch.bfloat16, device="meta")
    key = torch.empty(batch, key_heads, n_k, dim, dtype=torch.bfloat16, device="meta")
    assert splitting.is_chosen(Problem(query, key, key), other) is chosen


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("n_q", [1, 5, 64, 500])
@pytest.mark.parametrize("n_k", [500, 4096, 131072])
@pytest.mark.parametrize("dim", [64, 128, 256])
def test_the_error_is_within_the_bound_at_every_length(n_q, n_k, dim, dtype):
    query, key, value = (torch.randn(1, h, n, dim, device="cuda").to(dtype) for h, n in ((4, n_q), (2, n_k), (2, n_k)))
    case = accuracy.Case(query, key, value, -math.log(n_k), torch.randn_like(query), n_q > 1)
    found = accuracy.ratios(case, accuracy.run(partial(sigmoid_attention, backend="split_keys"), case))
    assert found["output"] <= accuracy.ALLOWED


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
def test_calls_in_a_cuda_graph_and_on_other_streams_do_not_share_counters():
    tensors = [torch.randn(2, h, n, 64, device="cuda", dtype=torch.bfloat16) for h, n in ((8, 1), (2, 4096), (2, 4096))]
    expected = sigmoid_attention(*tensors, enable_gqa=True, backend="split_keys")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = sigmoid_attention(*tensors, enable_gqa=True, backend="split_keys")
    outputs = []
    for stream in [torch.cuda.Stream() for _ in range(4)] * 5:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs.append(sigmoid_attention(*tensors, enable_gqa=True, backend="split_keys"))
        graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(each, expected) for each in [*outputs, captured])
