"""The softmax twin of a call against softmax written out in float64."""

import pytest
import torch

from stabmon.kernels import AuxRequest, observe, sigmoid_attention, sigmoid_attention_varlen
from stabmon.kernels.softmax_twin import softmax_in_place

B, H, N, D = 2, 4, 9, 8
SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625])
OPTIONS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.7},
    "alibi": {"alibi_slopes": SLOPES, "is_causal": True},
    "window": {"window": 3},
    "causal-window": {"window": 3, "is_causal": True},
    "lengths": {"key_lengths": torch.tensor([9, 4])},
    "no-key": {"key_lengths": torch.tensor([9, 0])},
    "boolean-mask": {"attn_mask": torch.rand(B, 1, N, N, generator=torch.Generator().manual_seed(1)) > 0.3},
    "floating-mask": {"attn_mask": torch.randn(1, H, N, N, generator=torch.Generator().manual_seed(2)).double()},
}


def tensors(n_q=N, heads=H):
    torch.manual_seed(0)
    query = torch.randn(B, H, n_q, D, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(B, heads, N, D, dtype=torch.float64, requires_grad=True) for _ in "kv")
    return query, key, value


def written_out(query, key, value, *, scale=D**-0.5, is_causal=False, alibi_slopes=None, window=None, **given):
    key, value = (x.repeat_interleave(query.size(1) // x.size(1), 1) for x in (key, value))
    z = scale * query @ key.mT
    ahead = torch.arange(N) - (torch.arange(query.size(2)) + N - query.size(2))[:, None]
    if alibi_slopes is not None:
        z = z - alibi_slopes[:, None, None].double() * ahead.abs()
    hidden = torch.zeros_like(z, dtype=torch.bool)
    if is_causal:
        hidden |= ahead > 0
    if window is not None:
        hidden |= (ahead <= -window) | (ahead >= window)
    if "key_lengths" in given:
        hidden |= torch.arange(N) >= given["key_lengths"][:, None, None, None]
    mask = given.get("attn_mask")
    if mask is not None:
        hidden, z = (hidden | ~mask, z) if mask.dtype == torch.bool else (hidden, z + mask)
    weights = z.masked_fill(hidden, -torch.inf).softmax(-1).masked_fill(hidden, 0.0)
    return weights @ value


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("heads", [4, 2], ids=["heads", "groups"])
def test_outputs_and_gradients_are_those_of_softmax(name, heads):
    options = OPTIONS[name]
    query, key, value = tensors(heads=heads)
    with softmax_in_place():
        found = sigmoid_attention(query, key, value, bias=-3.0, enable_gqa=heads != H, **options)
    expected = written_out(query, key, value, **options)
    torch.testing.assert_close(found, expected)
    weight = torch.randn(found.shape, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), (query, key, value)),
        torch.autograd.grad((expected * weight).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("is_causal", [False, True])
def test_fewer_queries_end_with_the_keys(is_causal):
    query, key, value = tensors(n_q=3)
    with softmax_in_place():
        found = sigmoid_attention(query, key, value, is_causal=is_causal)
    torch.testing.assert_close(found, written_out(query, key, value, is_causal=is_causal))


def test_packed_sequences_stay_apart():
    query, key, value = (x[0].transpose(0, 1) for x in tensors())
    starts = torch.tensor([0, 4, N], dtype=torch.int32)
    with softmax_in_place():
        found = sigmoid_attention_varlen(query, key, value, starts, starts, 5, 5, is_causal=True)
    for first, stop in ((0, 4), (4, N)):
        part = [x[first:stop].transpose(0, 1)[None] for x in (query, key, value)]
        alone = torch.nn.functional.scaled_dot_product_attention(*part, is_causal=True)[0].transpose(0, 1)
        torch.testing.assert_close(found[first:stop], alone)


def test_outside_the_block_a_call_is_sigmoid_again():
    query, key, value = tensors()
    before = sigmoid_attention(query, key, value, bias=-2.0)
    with pytest.raises(ZeroDivisionError), softmax_in_place():
        1 / 0  # noqa: B018
    assert torch.equal(sigmoid_attention(query, key, value, bias=-2.0), before)


def test_statistics_are_refused_and_no_observer_is_asked():
    class Never:
        def request(self, query, key):
            raise AssertionError

        record = request

    query, key, value = tensors()
    with softmax_in_place():
        previous = observe.swap(Never())
        try:
            sigmoid_attention(query, key, value)
        finally:
            observe.swap(previous)
        with pytest.raises(ValueError, match="return_aux"):
            sigmoid_attention(query, key, value, return_aux=AuxRequest(rows=2))
