import math
import random

import pytest
import torch

from stabmon.kernels import STATISTICS, AuxRequest, device, sigmoid_attention
from stabmon.kernels.launching import completion_counters
from stabmon.kernels.problem import Problem

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() and not device.interpreted(), reason="needs a CUDA device or Triton's interpreter"
)
SHAPES = [
    pytest.param({"n_q": 37, "n_k": 100, "dim": 16, "rows": 7}, id="N37x100"),
    pytest.param({"n_q": 100, "n_k": 37, "dim": 24, "rows": 64, "causal": True}, id="N100x37-causal"),
    pytest.param(
        {"n_q": 70, "n_k": 600, "dim": 16, "rows": 40, "causal": True, "alibi": True},
        id="N600-causal-alibi-three-splits",
    ),
    pytest.param({"n_q": 1, "n_k": 1, "dim": 16, "rows": 1, "causal": True}, id="N1"),
    pytest.param({"n_q": 5, "n_k": 9, "dim": 16, "rows": 64, "heads": 4}, id="fewer-queries-than-rows-gqa"),
    pytest.param({"n_q": 70, "n_k": 600, "dim": 16, "rows": 9, "causal": True, "window": 100}, id="N600-causal-window"),
    pytest.param({"n_q": 70, "n_k": 60, "dim": 16, "rows": 9, "window": 5}, id="N70x60-window"),
    pytest.param({"n_q": 20, "n_k": 100, "dim": 16, "rows": 9, "lengths": (33, 0)}, id="N100-lengths"),
    pytest.param({"n_q": 20, "n_k": 100, "dim": 16, "rows": 9, "sequences": 1}, id="N100-one-sequence-of-two"),
]


def call(shape, backend, dtype, level=0.0):
    torch.manual_seed(1)
    n_q, n_k, dim, heads = shape["n_q"], shape["n_k"], shape["dim"], shape.get("heads", 2)
    query = torch.randn(2, heads, n_q, dim, device=DEVICE).to(dtype)
    key = torch.randn(2, 2, n_k, dim, device=DEVICE).to(dtype)
    slopes = torch.linspace(0.1, 0.5, heads, device=DEVICE) if shape.get("alibi") else None
    bias = torch.linspace(-2.0, 0.0, heads, device=DEVICE) + level
    lengths = shape.get("lengths")
    return sigmoid_attention(
        query,
        key,
        key,
        bias=bias,
        is_causal=shape.get("causal", False),
        alibi_slopes=slopes,
        enable_gqa=True,
        window=shape.get("window"),
        key_lengths=None if lengths is None else torch.tensor(lengths, device=DEVICE),
        return_aux=AuxRequest(shape["rows"], 0.4, shape.get("sequences")),
        backend=backend,
    )[1].statistics


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_measures_what_the_specification_says(shape, dtype, poisoned):
    found, expected = call(shape, "triton", dtype), call(shape, "eager", dtype)
    torch.testing.assert_close(found, expected, rtol=2e-3 if dtype == torch.float16 else 1e-4, atol=1e-3)


@pytest.mark.parametrize("level", [-12.0, 12.0], ids=["dead", "saturated"])
def test_counts_of_dead_and_saturated_weights_are_exact(level):
    shape = {"n_q": 37, "n_k": 100, "dim": 16, "rows": 7}
    column = STATISTICS.index("dead" if level < 0 else "saturated")
    found, expected = (call(shape, backend, torch.float32, level)[..., column] for backend in ("triton", "eager"))
    assert torch.equal(found, expected)
    assert found.min() > 0


@pytest.mark.parametrize(("batch", "sequences"), [(2, 1), (5, 2), (5, 3), (7, 7), (3, 9)])
@pytest.mark.parametrize("offset", [0.0, 0.7])
def test_as_many_sequences_are_sampled_as_asked_for(batch, sequences, offset):
    query, key = torch.randn(batch, 1, 4, 16, device=DEVICE), torch.randn(batch, 1, 6, 16, device=DEVICE)
    request = AuxRequest(2, offset, sequences)
    found, expected = (
        sigmoid_attention(query, key, key, return_aux=request, backend=backend)[1].statistics
        for backend in ("triton", "eager")
    )
    torch.testing.assert_close(found, expected)
    assert found[:, 0, STATISTICS.index("rows")].count_nonzero() == min(batch, sequences)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [64, 80, 128, 256])
def test_bfloat16_statistics_at_length(dim):
    shape = {"n_q": 1000, "n_k": 3000, "dim": dim, "rows": 64, "causal": True}
    found, expected = call(shape, "triton", torch.bfloat16), call(shape, "eager", torch.bfloat16)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=2.0)


def test_a_nan_is_seen_where_it_is_and_nowhere_else():
    query, key = torch.randn(1, 2, 8, 16, device=DEVICE), torch.randn(1, 2, 8, 16, device=DEVICE)
    query[0, 1, 4] = torch.nan
    output, aux = sigmoid_attention(query, key, key, return_aux=AuxRequest(8), backend="triton")
    assert torch.isnan(output).sum() == torch.isnan(output[0, 1, 4]).sum() == 16
    healthy, ill = (dict(zip(STATISTICS, head.tolist(), strict=True)) for head in aux.statistics[0])
    assert all(math.isfinite(value) for value in healthy.values())
    assert all(math.isnan(ill[name]) for name in ("output_square_sum", "row_mass_sum", "logit_sum", "logit_max"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="only the interpreter lets programs be put in order")
def test_the_order_in_which_programs_arrive_changes_no_bit(monkeypatch):
    from triton.runtime.interpreter import interpreter_builder

    shape = {"n_q": 70, "n_k": 600, "dim": 16, "rows": 40, "causal": True, "sequences": 1}
    expected, place = call(shape, "triton", torch.float32), interpreter_builder.set_grid_idx
    order: dict[tuple[int, ...], list[int]] = {}

    def shuffled(x, y, z):
        size = interpreter_builder.grid_dim
        numbers = order.setdefault(size, random.Random(1).sample(range(math.prod(size)), math.prod(size)))
        number = numbers[(x * size[1] + y) * size[2] + z]
        place(number // (size[1] * size[2]), number // size[2] % size[1], number % size[2])

    monkeypatch.setattr(interpreter_builder, "set_grid_idx", shuffled)
    assert torch.equal(call(shape, "triton", torch.float32), expected)
    assert (2, 2, 3) in order, "two heads, two tiles of rows, three splits of keys"


def test_counters_are_zero_again_and_parts_of_the_outputs_sums_are_added(monkeypatch):
    from stabmon.kernels.triton.statistics_launch import begin

    counted = torch.zeros(64, dtype=torch.int32, device=DEVICE)
    monkeypatch.setattr(completion_counters, "counters", lambda device, number, kernel: counted)
    query, key = torch.randn(3, 2, 9, 16, device=DEVICE), torch.randn(3, 2, 70, 16, device=DEVICE)
    parts = torch.randn(3, 2, 200, device=DEVICE)
    found = begin(Problem(query, key, key, None, -1.0, None, 0.25, False), 4, 0.5, 2, True)(parts)
    torch.testing.assert_close(found[..., 0], parts.sum(-1))
    assert torch.equal(counted, torch.zeros_like(counted))


@pytest.mark.parametrize("window", [2**31 - 1, 5000])
def test_a_window_that_holds_everything_changes_nothing(window):
    shape = {"n_q": 20, "n_k": 50, "dim": 16, "rows": 20}
    assert torch.equal(call(shape | {"window": window}, "triton", torch.float32), call(shape, "triton", torch.float32))


BUSY = {"n_q": 4096, "n_k": 4096, "dim": 64, "rows": 16, "heads": 16, "causal": True, "sequences": 1}


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [16, 64])
def test_repeated_runs_give_the_same_bits(rows):
    expected = call(BUSY | {"rows": rows}, "auto", torch.bfloat16)
    assert all(torch.equal(call(BUSY | {"rows": rows}, "auto", torch.bfloat16), expected) for _ in range(20))


@pytest.mark.gpu
def test_streams_and_graphs_that_run_at_once_do_not_count_for_each_other():
    keys = [torch.randn(2, 8, 4096, 64, device="cuda").bfloat16() for _ in range(2)]

    def measure(key):
        found = [sigmoid_attention(key, key, key, return_aux=AuxRequest(16, 0.5, 1))[1].statistics for _ in range(4)]
        return torch.stack(found)

    expected, streams = [measure(key) for key in keys], [torch.cuda.Stream() for _ in keys]
    graphs = [torch.cuda.CUDAGraph() for _ in keys]
    captured = []
    for graph, key in zip(graphs, keys, strict=True):
        with torch.cuda.graph(graph):
            captured.append(measure(key))
    for _ in range(10):
        eager = []
        torch.cuda.synchronize()
        for stream, key in zip(streams, keys, strict=True):
            with torch.cuda.stream(stream):
                eager.append(measure(key))
        torch.cuda.synchronize()
        assert all(map(torch.equal, eager, expected))
        for stream, graph in zip(streams, graphs, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
        torch.cuda.synchronize()
        assert all(map(torch.equal, captured, expected))
