"""The specification against loops written from the formula, and its gradients against finite differences."""

import math

import pytest
import torch

from stabmon.kernels import STATISTICS, AuxRequest, sigmoid_attention, visibility
from stabmon.kernels.eager import reference
from stabmon.kernels.problem import Problem


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def sees(position, j, is_causal, window):
    if is_causal and j > position:
        return False
    if isinstance(window, tuple):
        return in_pair(position, j, window)
    return window is None or (position - window < j if is_causal else abs(position - j) < window)


def in_pair(position, j, window):
    left, right = window
    return (left < 0 or j >= position - left) and (right < 0 or j <= position + right)


def by_hand(query, key, value, bias, is_causal, slopes, window=None, lengths=None, mask=None):
    """One row at a time, keys a row may see counted from the end; mask: None or [B, H, N_q, N_k]."""
    batch, heads, n_q, dim = query.shape
    n_k, group = key.size(2), heads // key.size(1)
    output = torch.zeros_like(query)
    for b in range(batch):
        for h in range(heads):
            for i in range(n_q):
                position = i + n_k - n_q
                for j in range(n_k if lengths is None else int(lengths[b])):
                    if not sees(position, j, is_causal, window):
                        continue
                    z = float(query[b, h, i] @ key[b, h // group, j]) / math.sqrt(dim) - slopes[h] * abs(position - j)
                    if mask is not None and mask.dtype == torch.bool and not mask[b, h, i, j]:
                        continue
                    if mask is not None and mask.dtype != torch.bool:
                        z += float(mask[b, h, i, j])
                    output[b, h, i] += value[b, h // group, j] / (1 + math.exp(-z - bias[h]))
    return output


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(("n_q", "n_k"), [(5, 5), (3, 6), (6, 3), (1, 4)])
def test_eager_output_equals_the_formula(n_q, n_k, is_causal):
    query, key, value = draw(2, 4, n_q, 3), draw(2, 2, n_k, 3), draw(2, 2, n_k, 3)
    bias, slopes = draw(4), draw(4).abs()
    output = sigmoid_attention(
        query, key, value, bias=bias, is_causal=is_causal, alibi_slopes=slopes, enable_gqa=True, backend="eager"
    )
    torch.testing.assert_close(output, by_hand(query, key, value, bias, is_causal, slopes))


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("window", [None, 1, 3, (1, 2), (0, -1), (-1, 0), (-1, -1), (2, 2)], ids=str)
@pytest.mark.parametrize(("n_q", "n_k"), [(5, 5), (3, 6), (6, 3)])
def test_windows_and_lengths_equal_the_formula(n_q, n_k, window, is_causal):
    query, key, value, lengths = draw(3, 2, n_q, 3), draw(3, 2, n_k, 3), draw(3, 2, n_k, 3), torch.tensor([n_k, 2, 0])
    bias, slopes = draw(2), draw(2).abs()
    options = {"is_causal": is_causal, "window": window}
    output = sigmoid_attention(
        query, key, value, bias=bias, alibi_slopes=slopes, key_lengths=lengths, backend="eager", **options
    )
    expected = by_hand(query, key, value, bias, slopes=slopes, lengths=lengths, **options)
    torch.testing.assert_close(output, expected)
    assert torch.equal(output[2], torch.zeros(2, n_q, 3, dtype=torch.float64))


MASKS = [(5,), (4, 1), (4, 5), (2, 1, 1, 5), (2, 1, 4, 5), (1, 3, 4, 5), (1, 3, 1, 1), (2, 3, 4, 5)]


@pytest.mark.parametrize("kind", ["boolean", "floating"])
@pytest.mark.parametrize("shape", MASKS, ids=str)
def test_masks_of_every_shape_equal_the_formula(shape, kind):
    query, key, value = draw(2, 3, 4, 2), draw(2, 3, 5, 2), draw(2, 3, 5, 2)
    bias, slopes, mask = draw(3), draw(3).abs(), draw(*shape)
    mask = mask > 0 if kind == "boolean" else mask.masked_fill(mask > 1, -torch.inf)
    options = {"bias": bias, "is_causal": True, "alibi_slopes": slopes, "key_lengths": torch.tensor([5, 4])}
    output = sigmoid_attention(query, key, value, attn_mask=mask, backend="eager", **options)
    whole = mask.expand(2, 3, 4, 5)
    expected = by_hand(query, key, value, bias, True, slopes, lengths=options["key_lengths"], mask=whole)
    torch.testing.assert_close(output, expected)
    statistics = [
        sigmoid_attention(query, key, value, attn_mask=given, return_aux=AuxRequest(4), **options)[1].statistics
        for given in (mask, whole.clone() if kind == "boolean" else whole.clamp(min=-1e4))
    ]
    torch.testing.assert_close(*statistics)
    assert statistics[0].isfinite()[..., :-1].all()


def test_a_row_of_which_a_mask_hides_everything_gives_zero_and_receives_no_gradient():
    leaves = [draw(1, 2, 4, 3).requires_grad_() for _ in range(3)]
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[2] = False
    for given in (mask, torch.zeros(4, 4).masked_fill(~mask, -torch.inf), torch.zeros(4, 4).masked_fill(~mask, -1e4)):
        output = sigmoid_attention(*leaves, attn_mask=given, bias=1.0)
        (grad,) = torch.autograd.grad(output.sum(), leaves[0])
        assert output[:, :, 2].eq(0).all()
        assert grad[:, :, 2].eq(0).all()
        assert output[:, :, 3].ne(0).all()


@pytest.mark.parametrize("kind", ["boolean", "floating"])
@pytest.mark.parametrize(
    ("options", "counts"),
    [({}, [3, 5]), ({"key_lengths": torch.tensor([5, 4])}, [2, 4]), ({"window": 2}, [3, 3])],
    ids=["mask", "lengths", "window"],
)
def test_no_bias_follows_the_most_keys_that_a_mask_leaves(options, counts, kind):
    query, key, value = (draw(2, 2, 6, 4) for _ in range(3))
    mask = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 0, 1]], dtype=torch.bool)[:, None, None]
    mask = mask if kind == "boolean" else torch.zeros(2, 1, 1, 6).masked_fill(~mask, -torch.inf)
    found = sigmoid_attention(query, key, value, attn_mask=mask, **options)
    for b, count in enumerate(counts):
        of = {name: given[b : b + 1] if isinstance(given, torch.Tensor) else given for name, given in options.items()}
        of |= {"attn_mask": mask[b : b + 1], "bias": -math.log(count)}
        alone = sigmoid_attention(*(x[b : b + 1] for x in (query, key, value)), **of)
        torch.testing.assert_close(found[b : b + 1], alone)


def test_a_mask_of_queries_counts_for_no_bias_what_its_widest_row_sees():
    query, key, value = (draw(1, 2, 5, 4) for _ in range(3))
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(
        sigmoid_attention(query, key, value, attn_mask=mask), sigmoid_attention(query, key, value, is_causal=True)
    )


def test_no_bias_follows_each_sequences_own_length():
    query, key, value = (draw(3, 2, 6, 4) for _ in range(3))
    lengths = torch.tensor([6, 2, 0])
    output = sigmoid_attention(query, key, value, key_lengths=lengths)
    for b, n in enumerate([6, 2]):
        alone = sigmoid_attention(query[b : b + 1], key[b : b + 1, :, :n], value[b : b + 1, :, :n])
        torch.testing.assert_close(output[b : b + 1], alone)
    assert torch.equal(output[2], torch.zeros(2, 6, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("is_causal", "window", "most"),
    [(True, 3, 3), (False, 3, 5), (False, (1, 3), 5), (True, (2, 5), 3), (False, (-1, 2), 9)],
    ids=str,
)
def test_no_bias_follows_the_most_keys_that_a_window_holds(is_causal, window, most):
    query, key, value = (draw(1, 2, 9, 4) for _ in range(3))
    options = {"window": window, "is_causal": is_causal}
    found = sigmoid_attention(query, key, value, **options)
    assert torch.equal(found, sigmoid_attention(query, key, value, **options, bias=-math.log(most)))


def test_a_query_without_a_key_gives_zero():
    query, key = draw(1, 1, 5, 4), draw(1, 1, 2, 4)
    output = sigmoid_attention(query, key, key, is_causal=True)
    assert torch.equal(output[:, :, :3], torch.zeros(1, 1, 3, 4, dtype=torch.float64))
    assert output[:, :, 3:].abs().min() > 0


@pytest.mark.parametrize("is_causal", [False, True], ids=["full", "causal"])
def test_gradients_match_finite_differences(is_causal):
    leaves = [draw(1, 2, 4, 3), draw(1, 1, 5, 3), draw(1, 1, 5, 3), draw(2)]
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def call(query, key, value, bias):
        return sigmoid_attention(query, key, value, bias=bias, is_causal=is_causal, enable_gqa=True)

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 1, 2, 3), (2, 3)], ids=str)
def test_the_gradient_of_a_floating_mask_matches_finite_differences(shape):
    leaves = [draw(1, 2, 2, 2), draw(1, 2, 3, 2), draw(*(shape if len(shape) == 2 else (1, *shape[1:])))]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    hidden = torch.zeros(3, dtype=torch.float64).index_fill(0, torch.tensor([1]), -torch.inf)

    def call(query, key, mask):
        return sigmoid_attention(query, key, key, bias=-1.0, attn_mask=mask + hidden)

    assert torch.autograd.gradcheck(call, leaves)


def test_statistics_are_those_of_the_sampled_rows():
    query, key = draw(1, 2, 12, 4), draw(1, 2, 20, 4)
    bias = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    rows = visibility.sampled_rows(12, 4, 0.5, query.device)
    assert rows.tolist() == [1, 4, 7, 10]
    found = reference.row_statistics(Problem(query, key, key, bias, 0.0, None, 0.5, True), 4, 0.5)
    for h in range(2):
        z = [0.5 * query[0, h, row] @ key[0, h, : int(row) + 9].T for row in rows]
        w = [torch.sigmoid(row + bias[h]) for row in z]
        every, weights = torch.cat(z), torch.cat(w)
        expected = torch.tensor(
            [
                weights.sum(),
                4,
                every.sum(),
                every.square().sum(),
                every.numel(),
                (every + bias[h] > 0).sum(),
                sum((row < 0.01 / row.numel()).sum() for row in w),
                every.max(),
            ]
        )
        torch.testing.assert_close(found[0, h], expected.float())


def test_statistics_are_named_once_each():
    assert len(set(STATISTICS)) == len(STATISTICS) == 9


@pytest.mark.parametrize(("length", "rows", "offset"), [(7, 3, 0.0), (7, 3, 0.999), (5, 64, 0.3), (131072, 64, 0.7)])
def test_sampled_rows_lie_one_in_each_stratum(length, rows, offset):
    sampled = visibility.sampled_rows(length, rows, offset, torch.device("cpu"))
    count = min(length, rows)
    edges = torch.arange(count + 1, dtype=torch.float64) * length / count
    assert len(sampled.unique()) == count
    assert ((sampled >= edges[:-1].floor()) & (sampled < edges[1:])).all()


def test_rows_without_a_key_are_not_counted():
    query, key = draw(1, 1, 5, 4), draw(1, 1, 2, 4)
    _, aux = sigmoid_attention(query, key, key, is_causal=True, return_aux=AuxRequest(rows=5))
    columns = dict(zip(STATISTICS, aux.statistics[0, 0].tolist(), strict=True))
    assert (columns["rows"], columns["pairs"]) == (2, 3)


def test_all_but_the_maximum_add_over_strata():
    query, key = draw(2, 2, 16, 4), draw(2, 2, 16, 4)
    _, whole = sigmoid_attention(query, key, key, is_causal=True, return_aux=AuxRequest(rows=16))
    halves = [
        sigmoid_attention(query, key, key, is_causal=True, return_aux=AuxRequest(8, offset))[1].statistics
        for offset in (0.0, 0.5)
    ]
    torch.testing.assert_close(sum(half[..., 1:-1] for half in halves), whole.statistics[..., 1:-1])
    assert torch.equal(torch.maximum(*halves)[..., -1], whole.statistics[..., -1])
