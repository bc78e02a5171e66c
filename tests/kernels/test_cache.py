"""Key/value caches with pages, and with room at the end: each sequence alone in float64, and what is refused."""

import re

import pytest
import torch

from stabmon.kernels import AuxRequest, device, sigmoid_attention
from stabmon.kernels.dispatch import _problem
from stabmon.kernels.eager import reference
from stabmon.kernels.options import Packed, complete

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
DTYPES = [torch.float32, torch.bfloat16 if GPU else torch.float16]
ALLOWED = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
BACKENDS = ["eager", *(["split_keys"] if GPU or device.interpreted() else [])]
B, H, H_K, PAGES = 3, 4, 2, 6
BIAS = torch.tensor([-2.0, -4.0, -3.0, -5.0])
SLOPES = torch.tensor([[0.5, 0.25, 0.125, 0.1], [0.1, 0.2, 0.3, 0.4], [0.0, 0.01, 0.02, 0.03]])


def _cache(page, dim, dtype, lengths):
    """Return keys and values [B, H_k, N_k, D], pages of them that are NaN where nothing is written, and their table."""
    keys, values = (torch.randn(B, H_K, PAGES * page, dim, device=DEVICE).to(dtype) for _ in range(2))
    for x in (keys, values):
        for sequence, length in zip(x, lengths, strict=True):
            sequence[:, length:] = torch.nan
    places = torch.randperm(B * PAGES, generator=torch.Generator().manual_seed(1), device="cpu")
    pools = []
    for x in (keys, values):
        pool = torch.full((B * PAGES, page, H_K, dim), torch.nan, device=DEVICE, dtype=dtype).transpose(1, 2)
        pool[places] = x.unflatten(2, (PAGES, page)).transpose(1, 2).flatten(0, 1)
        pools.append(pool)
    table = places.view(B, PAGES).to(DEVICE, torch.int32)
    for row, length in zip(table, lengths, strict=True):
        row[-(-length // page) :] = 2**30  # no page at all
    return keys, values, pools, table


def _alone(query, keys, values, lengths, slopes, **options):
    """Return the output of each sequence by itself, with its own keys, in float64."""
    outputs = []
    for b, length in enumerate(lengths):
        one = (x[b : b + 1, :, :length].double() for x in (keys, values))
        given = {**options, "bias": BIAS.double().to(DEVICE), "enable_gqa": True}
        if slopes is not None:
            given["alibi_slopes"] = slopes[b].double()
        outputs.append(sigmoid_attention(query[b : b + 1].double(), *one, backend="eager", **given))
    return torch.cat(outputs)


CASES = {
    "one query": (1, {}),
    "causal": (5, {"is_causal": True}),
    "window": (16, {"is_causal": True, "window": 20}),
    "two sides": (3, {"window": (9, 0)}),
    "ALiBi": (2, {"is_causal": True, "slopes": True}),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("page", "dim"), [(16, 64), (32, 40), (256, 16)])
@pytest.mark.parametrize("case", CASES)
def test_a_cache_in_pages_or_with_room_is_each_sequence_alone(case, page, dim, dtype, backend):
    n_q, options = CASES[case]
    options = dict(options)
    lengths = [PAGES * page, page + 7, 17]
    torch.manual_seed(0)
    query = torch.randn(B, H, n_q, dim, device=DEVICE).to(dtype)
    keys, values, pools, table = _cache(page, dim, dtype, lengths)
    slopes = SLOPES.to(DEVICE) if options.pop("slopes", False) else None
    true = _alone(query, keys, values, lengths, slopes, **options)
    given = {
        **options,
        "bias": BIAS.to(DEVICE),
        "alibi_slopes": slopes,
        "key_lengths": torch.tensor(lengths, device=DEVICE),
        "cached": True,
        "enable_gqa": True,
        "backend": backend,
    }
    for found in (
        sigmoid_attention(query, keys, values, **given),
        sigmoid_attention(query, *pools, page_table=table, **given),
    ):
        assert ((found.double() - true).norm() / true.norm()).item() < ALLOWED[dtype]


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.skipif(len(BACKENDS) == 1, reason="needs a CUDA device or Triton's interpreter")
def test_every_element_is_written_for_lengths_of_zero_and_less_than_the_queries(splits):
    from stabmon.kernels.triton import split

    lengths, n_q, page, dim = [0, 3, 90], 5, 16, 32
    query = torch.randn(B, H, n_q, dim, device=DEVICE)
    _, _, pools, table = _cache(page, dim, torch.float32, lengths)
    options = complete({
        "is_causal": True, "key_lengths": torch.tensor(lengths, device=DEVICE), "cached": True, "page_table": table,
        "bias": -3.0,
    })  # fmt: skip
    problem = _problem(query, *pools, -3.0, options, Packed())
    output = torch.full_like(query, torch.nan)
    split.forward(problem, output, None, splits)
    torch.testing.assert_close(output, reference.sigmoid_attention(problem), rtol=1e-5, atol=1e-6)
    assert output[0].eq(0).all()
    assert output[1, :, :2].eq(0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_default_bias_follows_the_length_of_each_sequence(backend):
    lengths = torch.tensor([96, 23, 17], device=DEVICE)
    query = torch.randn(B, H, 1, 16, device=DEVICE)
    _, _, pools, table = _cache(16, 16, torch.float32, lengths.tolist())
    given = {"page_table": table, "key_lengths": lengths, "enable_gqa": True, "backend": backend}
    found, aux = sigmoid_attention(query, *pools, return_aux=AuxRequest(4, 0.5), **given)
    each = [
        sigmoid_attention(query[b : b + 1], *pools, bias=-torch.tensor(float(n)).log().item(), **{
            **given, "page_table": table[b : b + 1], "key_lengths": lengths[b : b + 1],
        })
        for b, n in enumerate(lengths.tolist())
    ]  # fmt: skip
    torch.testing.assert_close(found, torch.cat(each))
    torch.testing.assert_close(aux.statistics[..., 0], found.square().sum((2, 3)))
    assert aux.statistics.isfinite().all()


def test_the_gradient_through_pages_is_that_of_the_keys_side_by_side():
    lengths = [96, 23, 17]
    query = torch.randn(B, H, 2, 16, dtype=torch.float64)
    keys, values, pools, table = _cache(16, 16, torch.float64, lengths)
    pools = [pool.nan_to_num().requires_grad_() for pool in pools]
    given = {"key_lengths": torch.tensor(lengths), "cached": True, "enable_gqa": True, "bias": -3.0, "is_causal": True}
    paged = sigmoid_attention(query, *pools, page_table=table, **given).square().sum()
    plain = [x.nan_to_num().requires_grad_() for x in (keys, values)]
    sigmoid_attention(query, *plain, **given).square().sum().backward()
    paged.backward()
    for pool, x in zip(pools, plain, strict=True):
        torch.testing.assert_close(pool.grad.norm(), x.grad.norm())


QUERY, POOL = torch.randn(2, 4, 1, 16), torch.randn(5, 4, 16, 16)
TABLE, LENGTHS = torch.zeros(2, 3, dtype=torch.int32), torch.tensor([3, 4])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"page_table": TABLE[:1]}, "page_table must have shape [2, P], a row a sequence, got [1, 3]"),
        ({"page_table": TABLE.float()}, "page_table must be of int32 or int64"),
        ({"page_table": TABLE, "attn_mask": torch.ones(48, dtype=torch.bool)}, "page_table does not go with attn_mask"),
        ({"cached": True, "page_table": TABLE}, "cached=True needs key_lengths [B]"),
        ({"page_table": TABLE, "backend": "triton"}, "backend='triton' does not take page_table"),
        ({}, "key must have shape [2, 4, N_k, 16] to match query, got [5, 4, 16, 16]"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        sigmoid_attention(QUERY, POOL, POOL, **{"key_lengths": None, **options})


@pytest.mark.skipif(len(BACKENDS) == 1, reason="needs a CUDA device or Triton's interpreter")
def test_a_gradient_through_a_cache_is_refused_where_no_kernel_computes_it():
    query, pool, table = (x.to(DEVICE) for x in (QUERY, POOL, TABLE))
    query = query.detach().requires_grad_()
    with pytest.raises(RuntimeError, match="no gradient through a cache; pass backend='eager'"):
        sigmoid_attention(query, pool, pool, page_table=table, backend="split_keys")
