"""Long sequences on a device: sampled rows against float64, and the memory that a call takes."""

import math

import pytest
import torch

from stabmon.kernels import sigmoid_attention
from stabmon.kernels.bench import accuracy

pytestmark = pytest.mark.gpu
NAMES = ("query", "key", "value")
ROWS = 48


def run(length, backend, heads=1, dim=64):
    tensors = [torch.randn(1, heads, length, dim, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    leaves, grad = [tensor.requires_grad_() for tensor in tensors[:3]], tensors[3]
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    output = sigmoid_attention(*leaves, backend=backend)
    grads = torch.autograd.grad(output, leaves, grad)
    return leaves, grad, {"output": output.detach(), **dict(zip(NAMES, grads, strict=True))}, before


@pytest.mark.parametrize("backend", ["triton", "auto"])
@pytest.mark.parametrize("length", [16384, 131072])
def test_sampled_rows_are_exact_and_memory_grows_with_the_length_alone(length, backend):
    leaves, grad, found, before = run(length, backend)
    size = leaves[0].numel() * leaves[0].element_size()
    # output, dQ, dK, dV in the inputs' type; hopper adds dQ in float32, twice a tensor of 16-bit numbers
    allowed = 4 * size + (0 if backend == "triton" else 2 * size) + 2**21
    assert torch.cuda.max_memory_allocated() - before <= allowed
    rows = torch.randint(length, (ROWS,), device="cuda")
    query, key, value = (leaf.detach() for leaf in leaves)
    bias = -math.log(length)
    some = accuracy.Case(query[:, :, rows], key, value, bias, grad[:, :, rows])
    ratios = accuracy.ratios(some, {name: found[name][:, :, rows] for name in ("output", "query")})
    some = accuracy.Case(query, key[:, :, rows], value[:, :, rows], bias, grad)
    ratios |= accuracy.ratios(some, {name: found[name][:, :, rows] for name in ("key", "value")})
    assert max(ratios.values()) <= accuracy.ALLOWED, ratios
