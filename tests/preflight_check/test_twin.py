"""The softmax counterpart against torch's own attention, and the best bias against the equation it solves."""

import math

import pytest
import torch
from torch.nn import functional as F

from stabmon.kernels.problem import Problem
from stabmon.preflight_check import twin


def _call(queries=10, keys=10, heads=4, kv_heads=4, causal=False, slopes=None, gain=1.0):
    generator = torch.Generator().manual_seed(0)
    query = gain * torch.randn(3, heads, queries, 8, generator=generator)
    key, value = torch.randn(2, 3, kv_heads, keys, 8, generator=generator)
    return Problem(query, key, value, None, 0.0, slopes, 8**-0.5, causal)


def _mask(call, slopes=None):
    queries, keys = call.query.size(2), call.key.size(2)
    distance = (torch.arange(queries)[:, None] + keys - queries) - torch.arange(keys)
    mask = torch.zeros(call.query.size(1), queries, keys)
    if slopes is not None:
        mask = mask - slopes[:, None, None] * distance.abs()
    return mask.masked_fill(distance < 0, -torch.inf) if call.is_causal else mask


@pytest.mark.parametrize("chunk", [1, 2**22])
@pytest.mark.parametrize(
    "options",
    [{}, {"causal": True}, {"causal": True, "queries": 4}, {"kv_heads": 2}],
    ids=["full", "causal", "end", "gqa"],
)
@pytest.mark.parametrize("alibi", [False, True])
def test_the_twin_is_torchs_softmax_attention(monkeypatch, options, chunk, alibi):
    monkeypatch.setattr(twin, "CHUNK", chunk)
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625]) if alibi else None
    call = _call(slopes=slopes, **options)
    expected = F.scaled_dot_product_attention(
        call.query, call.key, call.value, attn_mask=_mask(call, slopes), enable_gqa=True
    )
    torch.testing.assert_close(twin.softmax_square_sum(call), expected.square().sum((0, 2, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("gain", [0.1, 1.0, 8.0])
def test_rows_sum_to_one_on_average_at_the_best_bias(causal, gain):
    call = _call(causal=causal, gain=gain)
    best = twin.best_bias(call, 10)
    z = call.query @ call.key.transpose(-1, -2) * call.scale + _mask(call)
    mass = torch.sigmoid(z + best[:, None, None]).sum(-1).mean((0, 2))
    torch.testing.assert_close(mass, torch.ones(4), rtol=1e-4, atol=1e-4)


def test_equal_logits_have_the_best_bias_of_minus_log_n_less_one():
    call = _call(gain=0.0)
    torch.testing.assert_close(twin.best_bias(call, 10), torch.full((4,), -math.log(9)), rtol=1e-5, atol=1e-5)


def test_a_single_key_has_no_best_bias_and_nan_logits_neither():
    assert twin.best_bias(_call(keys=1, queries=1), 1).isnan().all()
    broken = _call()
    broken.query[0, 1] = math.nan
    assert twin.best_bias(broken, 10).isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("causal", [False, True])
def test_packed_sequences_are_each_their_own(causal):
    whole, starts = _call(queries=9, keys=9, causal=causal), torch.tensor([0, 4, 9])
    one = whole._replace(query=whole.query[:1], key=whole.key[:1], value=whole.value[:1])
    packed = one._replace(query_starts=starts, key_starts=starts, max_q=5, max_k=5)
    parts = [
        one._replace(**{name: getattr(one, name)[:, :, start:stop] for name in ("query", "key", "value")})
        for start, stop in ((0, 4), (4, 9))
    ]
    expected = sum(twin.softmax_square_sum(part) for part in parts)
    torch.testing.assert_close(twin.softmax_square_sum(packed), expected, rtol=1e-5, atol=1e-5)
    best = twin.best_bias(packed, 9)
    z = [twin.masked_logits(part, torch.arange(part.query.size(2))) for part in parts]
    mass = sum(torch.sigmoid(part + best[:, None, None]).sum((0, 2, 3)) for part in z)
    torch.testing.assert_close(mass / 9, torch.ones(4), rtol=1e-4, atol=1e-4)


def test_keys_of_padding_and_outside_the_window_do_not_count():
    call = _call(queries=10, keys=10, causal=True)._replace(window=4, key_lengths=torch.tensor([10, 6, 3]))
    distance = torch.arange(10)[:, None] - torch.arange(10)
    mask = (distance >= 0) & (distance < 4) & (torch.arange(10) < call.key_lengths[:, None, None])[:, None]
    expected = torch.nan_to_num(
        F.scaled_dot_product_attention(call.query, call.key, call.value, attn_mask=mask), nan=0.0
    )
    torch.testing.assert_close(twin.softmax_square_sum(call), expected.square().sum((0, 2, 3)), rtol=1e-5, atol=1e-5)
