import inspect
import math
import os
import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from stabmon import kernels
from stabmon.kernels import AuxRequest, device, sigmoid_attention

BACKENDS = ["eager", pytest.param("triton", marks=pytest.mark.skipif(not device.interpreted(), reason="interpreter"))]


def draw(heads=2, length=20, dim=16, dtype=torch.float32):
    return [torch.randn(2, heads, length, dim, dtype=dtype) for _ in range(3)]


def test_no_bias_means_minus_log_of_the_number_of_keys():
    query, key, value = draw()
    assert torch.equal(sigmoid_attention(query, key, value), sigmoid_attention(query, key, value, bias=-math.log(20)))


def test_scale_is_one_over_root_head_dim():
    query, key, value = draw()
    assert torch.equal(sigmoid_attention(query, key, value), sigmoid_attention(query, key, value, scale=0.25))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [0, 5, 64])
def test_the_output_has_the_same_bits_with_and_without_statistics(backend, rows):
    query, key, value = draw()
    plain = sigmoid_attention(query, key, value, is_causal=True, backend=backend)
    watched, aux = sigmoid_attention(query, key, value, is_causal=True, return_aux=AuxRequest(rows), backend=backend)
    assert torch.equal(plain, watched)
    assert aux.statistics.shape == (2, 2, 9)
    assert not aux.statistics.requires_grad
    torch.testing.assert_close(aux.statistics[..., 0], plain.square().sum((2, 3)))


def test_without_rows_only_the_output_sum_is_there():
    _, aux = sigmoid_attention(*draw(), return_aux=AuxRequest(rows=0))
    assert torch.equal(aux.statistics[..., 1:-1], torch.zeros(2, 2, 7))
    assert (aux.statistics[..., -1] == -math.inf).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_receive_no_gradient(backend):
    query, key, value = (tensor.requires_grad_() for tensor in draw())
    output, aux = sigmoid_attention(query, key, value, return_aux=AuxRequest(4), backend=backend)
    output.sum().backward()
    assert aux.statistics.grad_fn is None
    assert query.grad is not None


def test_autocast_casts_the_tensors_and_keeps_the_bias():
    query, key, value = draw()
    bias = torch.tensor([-3.0001, -2.9999], requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = sigmoid_attention(query, key.bfloat16(), value, bias=bias)
    assert output.dtype == torch.bfloat16
    expected = sigmoid_attention(query.bfloat16(), key.bfloat16(), value.bfloat16(), bias=bias)
    assert torch.equal(output, expected)
    output.sum().backward()
    assert bias.grad.dtype == torch.float32


def test_float64_is_left_alone_by_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert sigmoid_attention(*draw(dtype=torch.float64)).dtype == torch.float64


def test_grouped_heads_are_repeated_heads():
    query, (key, value) = draw(heads=6)[0], draw(heads=2)[1:]
    grouped = sigmoid_attention(query, key, value, enable_gqa=True)
    repeated = [tensor.repeat_interleave(3, dim=1) for tensor in (key, value)]
    torch.testing.assert_close(grouped, sigmoid_attention(query, *repeated))


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_eager_is_one_graph(dynamic):
    compiled = torch.compile(
        lambda *args, bias: sigmoid_attention(*args, bias=bias, is_causal=True, return_aux=AuxRequest(4)),
        fullgraph=True,
        dynamic=dynamic,
        backend="aot_eager",
    )
    for length in (20, 33):
        tensors = [tensor.requires_grad_() for tensor in draw(length=length)]
        bias = torch.zeros(2, requires_grad=True)
        output, aux = compiled(*tensors, bias=bias)
        expected, wanted = sigmoid_attention(*tensors, bias=bias, is_causal=True, return_aux=AuxRequest(4))
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(aux.statistics, wanted.statistics)
        torch.autograd.grad(output.sum(), [*tensors, bias])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "triton"])
def test_one_graph_serves_all_lengths_without_a_bias(backend):
    if backend == "triton" and not device.interpreted():
        pytest.skip("interpreter")

    def call(*tensors):
        return sigmoid_attention(*tensors, window=30, is_causal=True, backend=backend)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for length in (9, 12, 31, 40):
        tensors = draw(length=length)
        torch.testing.assert_close(compiled(*tensors), call(*tensors))
        counts.append(counter.frame_count)
    assert len(set(counts)) == 1, "compiled again for another length"


@pytest.mark.parametrize("strict", [False, True], ids=["non-strict", "strict"])
def test_a_call_is_exported_with_a_dynamic_length(strict):
    class Module(torch.nn.Module):
        def forward(self, query, key, value):
            return sigmoid_attention(query, key, value, is_causal=True)

    length = {2: torch.export.Dim("n", min=2, max=512)}
    shapes = dict.fromkeys(("query", "key", "value"), length)
    exported = torch.export.export(Module(), tuple(draw(length=8)), dynamic_shapes=shapes, strict=strict)
    tensors = draw(length=11)
    torch.testing.assert_close(exported.module()(*tensors), Module()(*tensors))


def test_importing_loads_no_triton():
    code = "import sys, stabmon.kernels; print('triton' in sys.modules)"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path) + os.pathsep + os.getcwd()
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_argument_is_documented():
    text = inspect.getdoc(kernels.sigmoid_attention)
    missing = [name for name in inspect.signature(kernels.sigmoid_attention).parameters if f"{name}:" not in text]
    assert not missing
