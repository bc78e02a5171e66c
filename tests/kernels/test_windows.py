"""Windows of two sides in the fused backends against the float64 specification: output, gradients, statistics."""

import pytest
import torch

from stabmon.kernels import AuxRequest, device, sigmoid_attention, sigmoid_attention_varlen

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
pytestmark = pytest.mark.skipif(not (GPU or device.interpreted()), reason="needs a CUDA device or Triton's interpreter")
WINDOWS = [(0, 7), (40, 3), (-1, 5), (9, -1)]


def compute(leaves, backend, **options):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    found = sigmoid_attention(*leaves, bias=-2.0, return_aux=AuxRequest(7), backend=backend, **options)
    output, statistics = found[0], found[1].statistics
    weights = torch.linspace(-1, 1, output.numel(), device=DEVICE, dtype=leaves[0].dtype).view(output.shape).cos()
    return output.detach(), *torch.autograd.grad(output, leaves, weights), statistics


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize(("n_q", "n_k"), [(70, 50), (33, 80)], ids=["N70x50", "N33x80"])
def test_a_window_of_two_sides_is_that_of_float64(n_q, n_k, window, poisoned):
    leaves = [torch.randn(1, 2, n, 16, device=DEVICE) for n in (n_q, n_k, n_k)]
    options = {"window": window, "key_lengths": torch.tensor([n_k - 5], device=DEVICE)}
    found = compute(leaves, "triton", **options)
    exact = compute([leaf.double() for leaf in leaves], "eager", **options)
    for mine, true in zip(found, exact, strict=True):
        torch.testing.assert_close(mine.double(), true.double(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("n_q", [1, 9, 60])
def test_a_window_of_two_sides_with_split_keys_is_that_of_float64(n_q, window, poisoned):
    query, key, value = (torch.randn(1, h, n, 16, device=DEVICE) for h, n in ((2, n_q), (1, 70), (1, 70)))
    options = {"window": window, "bias": -2.0, "enable_gqa": True}
    found = sigmoid_attention(query, key, value, backend="split_keys", **options)
    true = sigmoid_attention(query.double(), key.double(), value.double(), backend="eager", **options)
    torch.testing.assert_close(found.double(), true, rtol=2e-4, atol=2e-4)


def test_packed_sequences_take_a_window_of_two_sides(poisoned):
    tensors, starts = (
        [torch.randn(50, 2, 16, device=DEVICE) for _ in range(3)],
        torch.tensor([0, 17, 50], device=DEVICE),
    )
    found, expected = (
        sigmoid_attention_varlen(*tensors, starts, starts, 33, 33, window=(2, 11), backend=backend)
        for backend in ("triton", "eager")
    )
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_a_window_that_is_alike_on_both_sides_is_the_number():
    tensors = [torch.randn(1, 2, 40, 16, device=DEVICE) for _ in range(3)]
    found, expected = (sigmoid_attention(*tensors, window=given, backend="triton") for given in ((4, 4), 5))
    assert torch.equal(found, expected)
