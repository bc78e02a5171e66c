"""Inputs that break a careless kernel: huge logits, rows without keys, a single key."""

import math

import pytest
import torch

from stabmon.kernels import device, sigmoid_attention
from stabmon.kernels.bench import accuracy

GPU = torch.cuda.is_available()
DEVICE, HALF = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float16)
BACKENDS = ["eager", pytest.param("triton", marks=pytest.mark.skipif(not (GPU or device.interpreted()), reason="no"))]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, HALF], ids=["fp32", "half"])


def differentiate(leaves, backend, **options):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    output = sigmoid_attention(*leaves[:3], bias=leaves[3], backend=backend, **options)
    return [output.detach(), *torch.autograd.grad(output, leaves, torch.ones_like(output))]


def draw(n_q=20, n_k=20, batch=2, dtype=torch.float32):
    shapes = ((batch, 2, n_q, 16), (batch, 2, n_k, 16), (batch, 2, n_k, 16))
    return [torch.randn(shape, device=DEVICE).to(dtype) for shape in shapes] + [torch.zeros(2, device=DEVICE)]


@DTYPES
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_logits_of_a_hundred_saturate_and_overflow_nothing(is_causal, backend, dtype):
    signs = torch.tensor([-1.0, 1.0], device=DEVICE)[torch.randint(2, (2, 20), device=DEVICE)]
    query = torch.full((1, 2, 20, 16), 5.0, device=DEVICE)
    key = signs[None, :, :, None].expand(1, 2, 20, 16) * 5.0  # logits of ±100
    value, grad = torch.randn_like(query), torch.ones_like(query)
    tensors = [tensor.to(dtype).contiguous() for tensor in (query, key, value, grad)]
    case = accuracy.Case(*tensors[:3], -3.0, tensors[3], is_causal)
    found = accuracy.run(lambda *args, **options: sigmoid_attention(*args, backend=backend, **options), case)
    exact = accuracy.exact(case)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), exact[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("level", [-math.inf, -1e30], ids=["infinite", "huge"])
def test_a_bias_that_masks_every_key_gives_zeros_and_no_nan(level, backend):
    leaves = draw()
    leaves[3].fill_(level)
    assert max(float(found.abs().max()) for found in differentiate(leaves, backend)) < 1e-34


@DTYPES
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_key_give_zeros_and_pass_nothing_on(backend, dtype, poisoned):
    none = torch.tensor([0, 0], device=DEVICE)
    for found in differentiate(draw(dtype=dtype), backend, key_lengths=none):
        assert torch.equal(found, torch.zeros_like(found))
    output, grad_query, *_ = differentiate(draw(n_q=20, n_k=4, dtype=dtype), backend, is_causal=True)
    assert not output[:, :, :16].any()
    assert not grad_query[:, :, :16].any()
    assert output[:, :, 16:].any()


@DTYPES
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [{"n_k": 1}, {"window": 1}, {"lengths": [1, 1]}], ids=["N1", "window", "length"])
def test_one_key_is_its_value_times_its_weight(options, backend, dtype):
    query, key, value, bias = draw(n_k=options.get("n_k", 20), dtype=dtype)
    given = {"window": options.get("window")}
    if "lengths" in options:
        given["key_lengths"] = torch.tensor(options["lengths"], device=DEVICE)
    only = slice(None) if "window" in options else slice(0, 1)
    weight = ((query.double() * key[:, :, only].double()).sum(-1, keepdim=True) / 4).sigmoid()
    output = sigmoid_attention(query, key, value, bias=bias, backend=backend, is_causal="window" in options, **given)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(output.double(), weight * value[:, :, only].double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_gradient_of_padding_is_zero_whatever_it_holds(backend, poisoned):
    leaves = draw(batch=2)
    lengths = torch.tensor([13, 20], device=DEVICE)
    first = differentiate(leaves, backend, key_lengths=lengths)
    for tensor in leaves[1:3]:
        tensor[0, :, 13:] = 1e4
    second = differentiate(leaves, backend, key_lengths=lengths)
    assert not first[2][0, :, 13:].any()
    assert not first[3][0, :, 13:].any()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["causal", "window", "mask", "lengths"])
def test_what_no_row_sees_may_hold_any_finite_number(name, backend):
    leaves, hidden = draw(n_q=12, n_k=20), slice(0, 3)
    options = {
        "causal": {"is_causal": True},
        "window": {"window": 2, "is_causal": True},
        "mask": {"attn_mask": torch.arange(20, device=DEVICE) > 2},
        "lengths": {"key_lengths": torch.tensor([17, 17], device=DEVICE)},
    }[name]
    if name == "lengths":
        hidden = slice(17, 20)
    if name == "causal":  # the last keys, which the first rows alone do not see
        hidden = slice(19, 20)
    first = differentiate(leaves, backend, **options)
    for tensor in leaves[1:3]:
        tensor[:, :, hidden] = 1e6
    second = differentiate(leaves, backend, **options)
    rows = slice(0, 11) if name == "causal" else slice(None)
    for a, b in zip(first[:2], second[:2], strict=True):
        assert torch.equal(a[:, :, rows], b[:, :, rows])


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_beyond_the_keys_count_as_all_of_them(backend):
    leaves = draw()
    beyond = torch.tensor([20, 1000], device=DEVICE)
    expected, found = differentiate(leaves, backend), differentiate(leaves, backend, key_lengths=beyond)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
