"""The quick sampled-row statistics against the kernels' own specification."""

import pytest
import torch

from stabmon.kernels import AuxRequest
from stabmon.kernels.eager.reference import row_statistics as specification
from stabmon.kernels.problem import Problem
from stabmon.stats.rows import row_statistics


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("alibi", [False, True])
@pytest.mark.parametrize(
    ("queries", "keys", "rows"), [(32, 32, 8), (32, 32, 100), (5, 12, 3), (12, 5, 12), (1, 1, 1)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_quick_statistics_are_the_specifications(causal, alibi, queries, keys, rows, dtype):
    generator = torch.Generator().manual_seed(0)
    query = (3 * torch.randn(3, 4, queries, 8, generator=generator)).to(dtype)
    key = torch.randn(3, 2, keys, 8, generator=generator).to(dtype)
    slopes = torch.tensor([0.5, 0.25, 0.1, 0.05]) if alibi else None
    bias = torch.tensor([-1.0, 0.0, 1.0, -5.0])
    problem = Problem(query, key, key, bias, 0.0, slopes, 8**-0.5, causal)
    expected = specification(problem, rows, 0.3)
    got = row_statistics(problem, AuxRequest(rows, 0.3))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_nan_in_a_key_reaches_only_the_rows_that_see_it():
    query, key = torch.ones(1, 1, 4, 2), torch.ones(1, 1, 4, 2)
    key[0, 0, 3] = torch.nan
    one = Problem(query[:, :, :3], key[:, :, :3], key, is_causal=True)
    assert row_statistics(one, AuxRequest(3, 0.5)).isfinite().all()
    row_sums = row_statistics(one._replace(query=query, key=key), AuxRequest(4, 0.5))[0, 0]
    assert row_sums[[0, 2, 3, 7]].isnan().all()
    assert row_sums[[1, 4]].tolist() == [4, 10]
