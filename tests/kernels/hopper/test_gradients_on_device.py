"""The gradients of the hopper backend on a device of capability 9.0, against float64."""

import math

import pytest
import torch

from stabmon.kernels import sigmoid_attention
from stabmon.kernels.bench import accuracy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs capability 9.0"
    ),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS, but there was no current CUDA context"),
]
LENGTHS = [(1, 1), (63, 63), (64, 64), (100, 100), (257, 257), (1000, 1000), (1, 1000), (257, 100), (100, 1000)]
TYPES = [torch.bfloat16, torch.float16]


def case(n_q, n_k, dim, dtype, is_causal, bias=None, size=1.0, heads=4, key_heads=2, batch=2):
    query, grad = (torch.randn(batch, heads, n_q, dim, device="cuda") for _ in range(2))
    key, value = (torch.randn(batch, key_heads, n_k, dim, device="cuda").to(dtype) for _ in range(2))
    bias = -math.log(n_k) if bias is None else bias
    return accuracy.Case((query * size).to(dtype), key, value, bias, grad.to(dtype), is_causal)


def run(call, deterministic=False):
    def attend(*tensors, **options):
        return sigmoid_attention(*tensors, backend="hopper", deterministic=deterministic, **options)

    return accuracy.run(attend, call)


def check(call, found, allowed=accuracy.ALLOWED):
    for name, ratio in accuracy.ratios(call, found).items():
        assert ratio <= allowed, (name, ratio)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("dtype", TYPES, ids=["bf16", "fp16"])
@pytest.mark.parametrize("dim", [40, 64, 80, 128], ids=lambda dim: f"D{dim}")
def test_gradients_are_as_exact_as_rounding_allows(dim, dtype, is_causal, deterministic):
    for n_q, n_k in LENGTHS:
        for bias in (None, torch.linspace(-9, 1, 4, device="cuda")):
            call = case(n_q, n_k, dim, dtype, is_causal, bias)
            found = run(call, deterministic)
            check(call, found)
            again = run(call, deterministic)
            repeats = [name for name in found if deterministic or name != "query"]
            assert all(torch.equal(again[name], found[name]) for name in repeats)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
@pytest.mark.parametrize("dtype", TYPES, ids=["bf16", "fp16"])
@pytest.mark.parametrize("bias", [0.0, -5.0, -12.0, 12.0], ids=["b0", "b-5", "b-12", "b12"])
def test_logits_of_a_hundred_neither_overflow_nor_vanish(dtype, bias, deterministic):
    call = case(257, 1000, 128, dtype, True, torch.full((4,), bias, device="cuda"), size=40.0)
    check(call, run(call, deterministic))


@pytest.mark.parametrize("learnable", [False, True], ids=["number", "tensor"])
@pytest.mark.parametrize("dim", [64, 128], ids=["D64", "D128"])
@pytest.mark.parametrize("length", [2048, 8192, 16384])
def test_the_fast_form_is_within_its_error_bound(length, dim, learnable):
    bias = torch.full((2,), -math.log(length), device="cuda") if learnable else None
    call = case(1024, length, dim, torch.bfloat16, False, bias, heads=2, batch=1)
    check(call, run(call))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("deterministic", [False, True], ids=["fused", "split"])
def test_layout_does_not_change_a_bit(deterministic):
    call = case(1000, 1000, 64, torch.bfloat16, True, heads=8, key_heads=8)
    strided = call._replace(**{
        name: getattr(call, name).transpose(1, 2).contiguous().transpose(1, 2)
        for name in ("query", "key", "value", "grad")
    })  # fmt: skip
    dense, found = run(call, deterministic), run(strided, deterministic)
    for name in dense if deterministic else ("key", "value"):
        assert torch.equal(dense[name], found[name]), name


def test_a_cuda_graph_replays_the_backward():
    call = case(300, 300, 64, torch.bfloat16, True, torch.linspace(-9, 1, 4, device="cuda"))
    expected = run(call, True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run(call, True)
    for tensor in found.values():
        tensor.fill_(torch.nan)
    graph.replay()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("length", [16384])
def test_the_backward_needs_its_workspace_alone(length):
    leaves = [torch.randn(1, 8, length, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    grad = torch.randn_like(leaves[0])
    output = sigmoid_attention(*leaves, backend="hopper")
    torch.autograd.grad(output, leaves, grad, retain_graph=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    torch.autograd.grad(output, leaves, grad)
    size = grad.numel() * grad.element_size()
    assert torch.cuda.max_memory_allocated() - before <= 3 * size + 2 * size + 2**20
