import subprocess
import sys

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from stabmon.kernels import device, sigmoid_attention, sigmoid_attention_varlen
from stabmon.kernels.problem import Problem

BACKENDS = ["eager", pytest.param("triton", marks=pytest.mark.skipif(not device.interpreted(), reason="interpreter"))]


def count(call, *tensors):
    with FlopCounterMode(display=False) as counter:
        call(*tensors).sum().backward()
    return counter.get_total_flops()


def test_forward_and_backward_count_as_fused_softmax_does():
    tensors = [torch.randn(2, 4, 8, 16, device="meta", requires_grad=True) for _ in range(3)]
    problem = Problem(*tensors, is_causal=True, window=3)
    ours = count(lambda *_: torch.ops.stabmon.sigmoid_attention(*problem, -1, 0.0, 0, "triton")[0], *tensors)
    forward = 4 * 2 * 4 * 8 * 8 * 16
    assert ours == 3.5 * forward
    with FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(*tensors)
    assert counter.get_total_flops() == forward


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_sequences_count_their_own_pairs_alone(backend):
    tensors = [torch.randn(6, 2, 16) for _ in range(3)]
    starts = torch.tensor([0, 2, 6])
    with FlopCounterMode(display=False) as counter:
        sigmoid_attention_varlen(*tensors, starts, starts, 4, 4, backend=backend)
    pairs = 6 * 6 if backend == "eager" else 2 * 2 + 4 * 4  # eager multiplies the whole square
    assert counter.get_total_flops() == 4 * 2 * 16 * pairs


@pytest.mark.skipif(not device.interpreted(), reason="interpreter")
def test_backends_count_the_same_forward():
    tensors = [torch.randn(2, 4, 8, 16) for _ in range(3)]
    counts = set()
    for backend in ("eager", "triton"):
        with FlopCounterMode(display=False) as counter:
            sigmoid_attention(*tensors, is_causal=True, backend=backend)
        counts.add(counter.get_total_flops())
    assert counts == {4 * 2 * 4 * 8 * 8 * 16}


@pytest.mark.parametrize(
    "order", ["stabmon.kernels, torch.utils.flop_counter", "torch.utils.flop_counter, stabmon.kernels"]
)
def test_the_formulas_are_there_whoever_is_imported_first(order):
    check = "print(len([k for k in torch.utils.flop_counter.flop_registry if 'stabmon' in str(k)]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import torch, {order}; {check}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "2"
