"""The hopper backend on a device of capability 9.0, against float64."""

import math

import pytest
import torch

from stabmon.kernels import AuxRequest, sigmoid_attention
from stabmon.kernels.bench import accuracy
from stabmon.kernels.hopper.sigmoid import forward_form
from stabmon.kernels.problem import Problem
from stabmon.kernels.sigmoid_forms import TANH

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs capability 9.0"
    ),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS, but there was no current CUDA context"),
]
LENGTHS = [(1, 1), (63, 63), (64, 64), (100, 100), (257, 257), (1000, 1000), (1, 1000), (257, 100), (1000, 4096)]
TYPES = [torch.bfloat16, torch.float16]


def case(n_q, n_k, dim, dtype, is_causal, bias=None, size=1.0, heads=4, key_heads=2):
    query, grad = (torch.randn(2, heads, n_q, dim, device="cuda") for _ in range(2))
    key, value = (torch.randn(2, key_heads, n_k, dim, device="cuda").to(dtype) for _ in range(2))
    bias = -math.log(n_k) if bias is None else bias
    return accuracy.Case((query * size).to(dtype), key, value, bias, grad.to(dtype), is_causal)


def run(call, backend="hopper"):
    return sigmoid_attention(
        *call[:3],
        bias=call.bias,
        is_causal=call.is_causal,
        enable_gqa=call.query.size(1) != call.key.size(1),
        backend=backend,
    )


def check(call, output):
    exact, floor = accuracy.exact(call)["output"], accuracy.floor(call)["output"]
    assert (output.double() - exact).norm() <= accuracy.ALLOWED * (floor - exact).norm() + 1e-9


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", TYPES, ids=["bf16", "fp16"])
@pytest.mark.parametrize("dim", [40, 64, 80, 96, 128], ids=lambda dim: f"D{dim}")
@pytest.mark.parametrize(("n_q", "n_k"), LENGTHS, ids=[f"{q}x{k}" for q, k in LENGTHS])
def test_the_output_is_as_exact_as_rounding_allows(n_q, n_k, dim, dtype, is_causal):
    for bias in (None, torch.linspace(-9, 1, 4, device="cuda")):
        call = case(n_q, n_k, dim, dtype, is_causal, bias)
        output = run(call)
        check(call, output)
        assert torch.equal(run(call), output)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", TYPES, ids=["bf16", "fp16"])
@pytest.mark.parametrize("bias", [0.0, -5.0], ids=["b0", "b-5"])
def test_logits_of_a_hundred_neither_overflow_nor_vanish(dtype, is_causal, bias):
    call = case(257, 1000, 128, dtype, is_causal, torch.full((4,), bias, device="cuda"), size=40.0)
    check(call, run(call))


@pytest.mark.parametrize("dim", [64, 128], ids=["D64", "D128"])
@pytest.mark.parametrize("length", [2048, 8192, 16384])
def test_the_fast_form_is_within_its_error_bound(length, dim):
    call = case(1024, length, dim, torch.bfloat16, False, heads=2)
    problem = Problem(*call[:3], None, call.bias, None, call.scale, False)
    assert forward_form(problem) == TANH
    check(call, run(call))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_layout_and_sums_do_not_change_a_bit(is_causal):
    call = case(1000, 1000, 64, torch.bfloat16, is_causal, heads=8, key_heads=8)
    output = run(call)
    strided = call._replace(**{name: getattr(call, name).transpose(1, 2).contiguous().transpose(1, 2) for name in
                               ("query", "key", "value")})  # fmt: skip
    assert torch.equal(run(strided), output)
    again, aux = sigmoid_attention(
        *call[:3], bias=call.bias, is_causal=is_causal, return_aux=AuxRequest(rows=0), backend="hopper"
    )
    assert torch.equal(again, output)
    torch.testing.assert_close(aux.statistics[..., 0], output.float().square().sum((-1, -2)), rtol=1e-4, atol=0)


def test_a_cuda_graph_replays_the_forward():
    call = case(1000, 1000, 64, torch.bfloat16, True)
    expected = run(call)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = run(call)
    output.fill_(torch.nan)
    graph.replay()
    assert torch.equal(output, expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_a_call_is_traced_into_one_graph():
    call = case(100, 257, 64, torch.bfloat16, True)
    compiled = torch.compile(run, fullgraph=True, dynamic=True)
    assert torch.equal(compiled(call), run(call))
