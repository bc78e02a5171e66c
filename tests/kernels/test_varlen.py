"""Packed sequences against each of them alone."""

import pytest
import torch

from stabmon.kernels import STATISTICS, AuxRequest, device, sigmoid_attention, sigmoid_attention_varlen

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
QUERIES, KEYS = [5, 0, 33, 20], [5, 7, 40, 0]
BACKENDS = ["eager", pytest.param("triton", marks=pytest.mark.skipif(not (GPU or device.interpreted()), reason="no"))]


def starts(lengths):
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()


def draw(heads=4, key_heads=2, dim=16, dtype=torch.float32):
    shapes = ((sum(QUERIES), heads, dim), (sum(KEYS), key_heads, dim), (sum(KEYS), key_heads, dim))
    return [torch.randn(shape, device=DEVICE).to(dtype).requires_grad_() for shape in shapes]


def packed(query, key, value, **options):
    return sigmoid_attention_varlen(
        query, key, value, starts(QUERIES), starts(KEYS), max(QUERIES), max(KEYS), enable_gqa=True, **options
    )


def one_by_one(query, key, value, **options):
    """Return the outputs of each sequence, packed, and the statistics of those that have queries and keys."""
    parts = zip(*(x.split(n) for x, n in ((query, QUERIES), (key, KEYS), (value, KEYS))), strict=True)
    outputs, statistics = [], {}
    for index, part in enumerate(parts):
        if not min(tensor.size(0) for tensor in part):
            outputs.append(part[0] * 0)
            continue
        alone = [tensor.transpose(0, 1)[None] for tensor in part]
        output, aux = sigmoid_attention(*alone, enable_gqa=True, backend="eager", **options)
        outputs.append(output[0].transpose(0, 1))
        statistics[index] = aux.statistics[0]
    return torch.cat(outputs), statistics


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fixed", [False, True], ids=["tensor", "none"])
@pytest.mark.parametrize(("is_causal", "window"), [(False, None), (True, 6)], ids=["full", "causal-window"])
def test_each_sequence_attends_as_it_would_alone(is_causal, window, fixed, backend, poisoned):
    leaves = draw()
    bias = None if fixed else torch.linspace(-2, 1, 4, device=DEVICE).requires_grad_()
    leaves += [] if fixed else [bias]
    slopes = torch.tensor([0.1, 0.2, 0.3, 0.4], device=DEVICE)
    options = {"bias": bias, "is_causal": is_causal, "window": window, "alibi_slopes": slopes}
    options["return_aux"] = AuxRequest(9, 0.3)
    output, aux = packed(*leaves[:3], backend=backend, **options)
    expected, statistics = one_by_one(*leaves[:3], **options)
    grad = torch.randn_like(output)
    found, true = (torch.autograd.grad(each, leaves, grad) for each in (output, expected))
    for mine, theirs in zip((output, *found), (expected, *true), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-4, atol=2e-4)
    for index, theirs in statistics.items():
        torch.testing.assert_close(aux.statistics[index], theirs, rtol=2e-4, atol=2e-4)
    assert aux.statistics[1, :, STATISTICS.index("rows")].eq(0).all()


OUTSIDE = {
    "tail": ([0, 7, 20], [0, 7, 20]),
    "tail-of-keys": ([0, 11, 24], [0, 9, 20]),
    "head": ([4, 11, 24], [4, 11, 24]),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside_of_all_sequences_is_zero(name, backend, poisoned):
    begin, end = (torch.tensor(each, device=DEVICE, dtype=torch.int32) for each in OUTSIDE[name])
    leaves = [torch.randn(24, 2, 16, device=DEVICE, requires_grad=True) for _ in range(3)]
    output = sigmoid_attention_varlen(*leaves, begin, end, 13, 13, is_causal=True, backend=backend)
    grads = torch.autograd.grad(output.square().sum(), leaves)
    for tensor, starts in zip((output, *grads), (begin, begin, end, end), strict=True):
        inside = slice(int(starts[0]), int(starts[-1]))
        assert tensor[inside].ne(0).any()
        assert tensor[: inside.start].eq(0).all()
        assert tensor[inside.stop :].eq(0).all()


def test_packing_is_one_graph():
    compiled = torch.compile(
        lambda q, k, v, s_q, s_k: sigmoid_attention_varlen(q, k, v, s_q, s_k, 33, 40, enable_gqa=True, backend="eager"),
        fullgraph=True,
        dynamic=True,
        backend="aot_eager",
    )
    leaves = draw()
    torch.testing.assert_close(compiled(*leaves, starts(QUERIES), starts(KEYS)), packed(*leaves, backend="eager"))


GOOD = {
    **dict(zip(("query", "key", "value"), (torch.zeros(8, 4, 16) for _ in range(3)), strict=True)),
    "cu_seqlens_q": torch.tensor([0, 3, 8]),
    "cu_seqlens_k": torch.tensor([0, 3, 8]),
    "max_seqlen_q": 5,
    "max_seqlen_k": 5,
}
REFUSED = [
    ({"query": torch.zeros(1, 8, 4, 16)}, ValueError, r"query must have 3 dimensions \[T, H, D\], got shape \[1, 8"),
    ({"query": 1.0}, TypeError, r"query must be a Tensor \[T, H, D\], got float"),
    ({"cu_seqlens_q": [0, 8]}, TypeError, r"cu_seqlens_q must be a Tensor of int32 or int64, got list"),
    ({"cu_seqlens_q": torch.zeros(3)}, TypeError, r"cu_seqlens_q must be of int32 or int64, got torch\.float32"),
    ({"cu_seqlens_q": torch.tensor([0])}, ValueError, r"cu_seqlens_q must have shape \[B \+ 1\].* got \[1\]"),
    ({"cu_seqlens_k": torch.tensor([0, 8])}, ValueError, r"cu_seqlens_k must have shape \[3\] .* got \[2\]"),
    ({"max_seqlen_q": 0}, ValueError, r"max_seqlen_q must be at least 1, got 0"),
    ({"max_seqlen_k": 4.0}, TypeError, r"max_seqlen_k must be a whole number, got float"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED, ids=[pattern[:40] for *_, pattern in REFUSED])
def test_a_wrong_call_raises_an_error_with_the_expected_and_the_given_value(change, kind, message):
    with pytest.raises(kind, match=message):
        sigmoid_attention_varlen(**(GOOD | change))


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [64, 128])
def test_packed_half_precision_on_the_device(dim, poisoned):
    leaves = draw(dim=dim, dtype=torch.bfloat16)
    output, expected = (
        packed(*leaves, is_causal=True, backend="triton"),
        packed(*leaves, is_causal=True, backend="eager"),
    )
    grad = torch.randn_like(output)
    found, true = (torch.autograd.grad(each, leaves, grad) for each in (output, expected))
    for mine, theirs in zip((output, *found), (expected, *true), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=2e-2, atol=2e-2)
